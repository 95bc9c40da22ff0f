"""One number explained: its parts, their source, and what it is checked against."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from planner.config.run import Assumption
from planner.formulas.quantities import QUANTITIES, Quantity


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """One number explained. `function` makes it from `arguments`; None: it is the sum of them, or the only one.

    `origin`: formula, sum, same (as another key), chosen, assumed, default, account, preset, measured or constant.
    `parts`: explanations of those arguments that are results themselves.
    """

    key: str
    value: float
    unit: str
    origin: str
    meaning: str
    formula: str | None = None
    function: Callable[..., Any] | None = None
    arguments: dict[str, float]
    source: str
    checked_against: str
    assumptions: tuple[Assumption, ...] = ()
    parts: tuple[Explanation, ...] = ()


def itself(key: str, value: float) -> dict[str, float]:
    """The arguments of a number that is what it is."""
    return {identifier(key.rpartition(".")[2]): value}


def identifier(name: str) -> str:
    """A key as a name that sympy reads as one symbol."""
    found = re.sub(r"\W", "_", name)
    return found if found[:1].isalpha() else f"n_{found}"


def quantity_of(name: str) -> Quantity:
    """The vocabulary's entry, or the name itself where it is a key's and no quantity."""
    return QUANTITIES.get(name) or Quantity(name, "", name.replace("_", " "))
