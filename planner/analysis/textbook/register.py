"""The register of calculations: `@calculation("3.1", …)` records a plain function and returns it untouched."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from planner.analysis.textbook.vocabulary import quantity
from planner.errors import InputError, UnknownNameError

_Calculation = TypeVar("_Calculation", bound=Callable[..., dict[str, Any]])
Vector = tuple[Any, ...]
Matrix = tuple[Vector, ...]


@dataclass(frozen=True, slots=True)
class Calculation:
    """One calculation: its number in the list, its name, what it answers, and the function that does.

    `concrete`: arguments that steer the calculation (a class, a number of steps) and stay numbers in its formula.
    `arithmetic`: whether it has a formula; the others are rules, facts and orders.
    """

    id: str
    name: str
    question: str
    source: str
    checked_against: str
    concrete: frozenset[str]
    arithmetic: bool
    function: Callable[..., dict[str, Any]]

    @property
    def defaults(self) -> dict[str, Any]:
        """Each argument with the value that the question names."""
        return {n: p.default for n, p in inspect.signature(self.function).parameters.items()}

    @property
    def explanation(self) -> str:
        """The function's own words."""
        return " ".join((self.function.__doc__ or "").split())

    def answer(self, values: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """The results with some arguments changed.

        Raises UnknownNameError for a name that is no argument, InputError where the values have no answer.
        """
        known = self.defaults
        for name in values or {}:
            if name not in known:
                raise UnknownNameError("argument", name, known)
        try:
            results = self.function(**(known | dict(values or {})))
            if not _finite(list(results.values())):
                raise ArithmeticError("a result is not a finite number")
            return results
        except (ArithmeticError, ValueError, IndexError, TypeError) as error:
            raise InputError(
                f"{self.id} ({self.name}) has no answer for these values",
                why=f"the calculation stops at: {error}",
                remedy="change the values given by --set; the defaults are shown by: gptplan explain " + self.id,
            ) from None


def _finite(value: Any) -> bool:
    """Whether every number in a result is one."""
    if isinstance(value, Mapping):
        return _finite(list(value.values()))
    if isinstance(value, list):
        return all(_finite(entry) for entry in value)
    return not isinstance(value, float) or math.isfinite(value)


CALCULATIONS: dict[str, Calculation] = {}


def calculation(
    identifier: str,
    name: str,
    question: str,
    *,
    source: str,
    checked_against: str = "the answer worked out by hand (tests/planner/analysis/test_textbook.py)",
    concrete: tuple[str, ...] = (),
    arithmetic: bool = True,
) -> Callable[[_Calculation], _Calculation]:
    """Register the function below; its arguments and results are names of the vocabulary, its docstring explains.

    checked_against: the independent computation that agrees with the answer. concrete, arithmetic: see `Calculation`.
    """
    assert source.strip(), "a calculation needs a source"

    def register(function: _Calculation) -> _Calculation:
        assert identifier not in CALCULATIONS and function.__doc__, identifier
        found = Calculation(
            identifier, name, question, source, checked_against, frozenset(concrete), arithmetic, function
        )
        for argument in found.defaults:
            quantity(argument)
        CALCULATIONS[identifier] = found
        return function

    return register
