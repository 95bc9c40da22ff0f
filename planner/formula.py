"""The register of formulas: `@formula(gives=…, source=…)` records a plain function and returns it untouched."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from planner.quantities import QUANTITIES

Function = TypeVar("Function", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class Formula:
    """One registered formula: what it gives (a name in `quantities`), the function, and where it comes from."""

    name: str
    gives: str
    source: str
    function: Callable[..., Any]

    @property
    def arguments(self) -> tuple[str, ...]:
        """Names of the arguments, each a name in `quantities`."""
        code = self.function.__code__
        return code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]


FORMULAS: dict[str, Formula] = {}


def formula(*, gives: str, source: str) -> Callable[[Function], Function]:
    """Register the function below under its own name; it stays a plain function.

    gives: name of the quantity that it computes; every argument is such a name too.
    source: paper, page or derivation; a formula without one cannot be registered.
    """
    assert source.strip(), "a formula needs a source"
    assert gives in QUANTITIES, f"{gives} is not in planner/quantities.py"

    def register(function: Function) -> Function:
        name = function.__name__
        assert name not in FORMULAS, f"two formulas are called {name}"
        found = Formula(name, gives, source, function)
        unknown = [a for a in found.arguments if a not in QUANTITIES]
        assert not unknown, f"{name}: {unknown} not in planner/quantities.py"
        FORMULAS[name] = found
        return function

    return register
