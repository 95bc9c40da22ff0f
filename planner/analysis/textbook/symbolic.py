"""A calculation's formula: its own function, called with symbols. Imports sympy, 0.25 s, only when called."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from planner.analysis.textbook.register import Calculation
from planner.analysis.textbook.vocabulary import quantity

_WHOLE = 4  # entries of a vector whose formula is written whole
SHOWN = 3  # entries of a longer one that it is written for


def shown_part(value: Any) -> Any:
    """Of a vector or matrix the entries that its formula is written for; anything else as it is."""
    if not isinstance(value, tuple):
        return value
    return tuple(shown_part(entry) for entry in (value if len(value) <= _WHOLE else value[:SHOWN]))


def cut_short(calculation: Calculation, typed: Mapping[str, Any]) -> list[str]:
    """The arguments of which a formula shows some entries only."""
    return [name for name, value in (calculation.defaults | dict(typed)).items() if shown_part(value) != value]


def formulas_of(
    calculation: Calculation, typed: Mapping[str, Any] | None = None
) -> tuple[dict[str, Any], dict[Any, Any]]:
    """The results that are expressions (or lists of them), and the symbols in them with their values.

    typed: arguments in place of the defaults; a vector has as many symbols as it has entries. One of more than _WHOLE
    is cut, so that a formula fits a line and sympy's maximum stays quick. Empty for a calculation that is no
    arithmetic, and where an argument points beyond a cut vector.
    """
    import sympy

    if not calculation.arithmetic:
        return {}, {}
    values: dict[Any, Any] = {}

    def symbol(text: str, value: Any) -> Any:
        found = sympy.Symbol(text, real=True)
        values[found] = value
        return found

    def vector(name: str, entries: tuple[Any, ...]) -> tuple[Any, ...]:
        return tuple(symbol(f"{name}_{i}", entry) for i, entry in enumerate(entries, start=1))

    arguments: dict[str, Any] = {}
    given = calculation.defaults | dict(typed or {})
    for name, whole in given.items():
        default = shown_part(whole)
        short = quantity(name).symbol
        if name in calculation.concrete:
            arguments[name] = default
        elif isinstance(default, tuple) and default and isinstance(default[0], tuple):
            arguments[name] = tuple(vector(f"{short}_{i}", row) for i, row in enumerate(default, start=1))
        else:
            arguments[name] = vector(short, default) if isinstance(default, tuple) else symbol(short, default)
    try:
        results = calculation.function(**arguments)
    except IndexError:  # such as the true class among logits that are not shown
        return {}, {}
    return {name: value for name, value in results.items() if _is_expression(value)}, values


def _is_expression(value: Any) -> bool:
    import sympy

    if isinstance(value, list):
        return bool(value) and all(_is_expression(entry) for entry in value)
    return isinstance(value, sympy.Expr)
