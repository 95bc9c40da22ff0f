"""The result of a preflight: one row per check, with measured, expected, reason and remedy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

CheckVerdict = Literal["ok", "warning", "failed", "skipped"]
Value = float | int | str | bool | None


@dataclass(frozen=True, slots=True)
class Check:
    """One check. `values`: the numbers in base units, the unit in the name; None is unknown."""

    name: str
    verdict: CheckVerdict
    measured: str
    expected: str
    why: str = ""
    remedy: str = ""
    values: Mapping[str, Value] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ShownSample:
    """A sample of the data: the beginnings of input and target, decoded (token ids without a decoder)."""

    index: int
    input: str
    target: str


@dataclass(frozen=True, slots=True)
class Preflight:
    """All checks of a config on a machine, before money is spent."""

    schema_version: int
    model: str
    parameters: int
    device: str
    device_name: str
    torch: str
    seconds: float
    rates: tuple[tuple[int, float], ...]
    samples: tuple[ShownSample, ...]
    checks: tuple[Check, ...]

    def count(self, verdict: CheckVerdict) -> int:
        """Number of checks with a verdict."""
        return sum(check.verdict == verdict for check in self.checks)
