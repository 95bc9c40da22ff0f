"""The constants of presets/rules/time.toml that may be fitted: their places, literature values and widths."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import tomlkit

from benchmarks.fit_map import Vector
from planner.presets import PRESETS
from planner.rules import rules

FILE = PRESETS / "rules" / "time.toml"
DIGITS = 3  # of a fitted value


@dataclass(frozen=True, slots=True)
class Constant:
    """One number of time.toml: `path`, its value before any row was looked at, the width of its logarithm, the source
    and the largest value that physics allows (None: any)."""

    path: str
    literature: float
    sigma: float
    source: str
    most: float | None = None

    @property
    def top(self) -> float:
        """The largest logarithm over the literature value."""
        return math.inf if self.most is None else math.log(self.most / self.literature)

    def place(self, table: Mapping[str, Any]) -> tuple[Any, str]:
        """The table that holds the number, and its key there. Raises KeyError for a path that leads nowhere."""
        head, *middle, key = self.path.split(".")  # a family's name may hold a comma and blanks, not a dot
        found: Any = table[head]
        if head == "family":
            name = middle.pop(0)
            found = next((family for family in found if family["name"] == name), None)
            if found is None:
                raise KeyError(self.path)
        for part in middle:
            found = found[part]
        if key not in found:
            raise KeyError(self.path)
        return found, key

    def value(self, table: Mapping[str, Any]) -> float:
        """The number in a table."""
        found, key = self.place(table)
        return float(found[key])


def fitted_constants() -> tuple[Constant, ...]:
    """The constants of presets/rules/time-fit.toml, in file order."""
    return tuple(Constant(**entry) for entry in rules("time-fit")["constant"])


def logarithms(constants: Sequence[Constant]) -> Vector:
    """The logarithms of today's values over the literature values."""
    table = rules("time")
    return np.array([math.log(one.value(table) / one.literature) for one in constants])


@contextmanager
def values_set(constants: Sequence[Constant], at: Vector) -> Iterator[None]:
    """Within it the planner computes with these logarithms over the literature values."""
    table = rules("time")
    before = [one.value(table) for one in constants]
    try:
        for one, move in zip(constants, at, strict=True):
            _put(one, table, one.literature * math.exp(move))
        yield
    finally:
        for one, value in zip(constants, before, strict=True):
            _put(one, table, value)


def _put(one: Constant, table: Mapping[str, Any], value: float) -> None:
    found, key = one.place(table)
    found[key] = value


def rounded(one: Constant, move: float) -> float:
    """The value of a constant as it is written, not above its top."""
    value = float(f"{one.literature * math.exp(move):.{DIGITS}g}")
    return value if one.most is None else min(value, one.most)


def write_values(constants: Sequence[Constant], at: Vector) -> None:
    """Put the fitted values into time.toml; everything else in the file stays."""
    document = tomlkit.parse(FILE.read_text(encoding="utf-8"))
    for one, move in zip(constants, at, strict=True):
        _put(one, document, rounded(one, float(move)))
    FILE.write_text(tomlkit.dumps(document), encoding="utf-8")
