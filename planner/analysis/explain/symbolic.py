"""Explanations as sympy expressions: text that can be evaluated again, pretty print and LaTeX.

sympy takes 0.25 s to import, which `explain`, `estimate --why` and the documents pay, and nobody else.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any

from planner.analysis.explain.explanation import Explanation, quantity_of
from planner.formulas.formula import FORMULAS, Formula
from planner.formulas.quantities import QUANTITIES
from planner.units import LARGEST_PLAIN, READ_BACK

DIGITS = 30  # of the second evaluation: more than a float has


def expression_of(found: Explanation) -> Any:
    """The very function that made the number, called with symbols of its arguments' own names."""
    import sympy

    symbols = {name: sympy.Symbol(name, real=True) for name in found.arguments}
    if found.function is None:
        return sympy.Add(*symbols.values())
    return sympy.sympify(found.function(**symbols))


def evaluated(expression: str, values: dict[str, float]) -> float:
    """The number of an expression's text, as anybody can compute it who has the JSON."""
    import sympy

    symbols = {name: sympy.Symbol(name, real=True) for name in values}
    exact = {symbols[name]: sympy.Float(value, 2 * DIGITS) for name, value in values.items()}
    return float(sympy.sympify(expression, locals=symbols).evalf(DIGITS, subs=exact, chop=True))


def equation_of(found: Explanation) -> tuple[str, str]:
    """Pretty print and LaTeX in the short symbols of the vocabulary; empty where a number is only itself."""
    if len(found.arguments) == 1 and found.function is None:
        return "", ""
    key = quantity_of(found.key.rpartition(".")[2])
    left = QUANTITIES[FORMULAS[found.formula].gives] if found.formula else key
    return rendered(left.symbol, _in_short_symbols(found.function, found.arguments))


def formula_equation(formula: Formula) -> tuple[str, str]:
    """A registered formula in short symbols."""
    return rendered(QUANTITIES[formula.gives].symbol, _in_short_symbols(formula.function, formula.arguments))


def rendered(left: str, right: Any) -> tuple[str, str]:
    """`left = right` as pretty print and as LaTeX."""
    import sympy

    if any(symbol.name == left for symbol in right.free_symbols):
        left += "'"  # a quantity made from another of its kind
    for largest in right.atoms(sympy.Max):
        if len(largest.args) > 2 and all(entry.is_Symbol for entry in largest.args):  # of a whole vector
            right = right.subs(largest, sympy.Symbol(f"{largest.args[0].name.partition('_')[0]}_max", real=True))
    long = {n: sympy.Float(n, READ_BACK) for n in right.atoms(sympy.Integer) if abs(n) >= LARGEST_PLAIN}
    equation = sympy.Eq(sympy.Symbol(left), right.xreplace(long), evaluate=False)
    pretty = sympy.pretty(equation, use_unicode=True, wrap_line=False)
    return "\n".join(line.rstrip() for line in pretty.splitlines()), sympy.latex(equation)


def with_numbers(found: Explanation, shown: Callable[[float], str] = repr) -> str:
    """The expression with each argument's number in its place, as `shown` writes it."""
    text = str(expression_of(found))

    def number(match: re.Match[str]) -> str:
        name = match.group()
        return shown(found.arguments[name]) if name in found.arguments else name

    return re.sub(r"[A-Za-z_]\w*", number, text)


def _in_short_symbols(function: Any, names: Iterable[str]) -> Any:
    import sympy

    symbols = {name: sympy.Symbol(quantity_of(name).symbol, real=True) for name in names}
    if function is None:
        return sympy.Add(*symbols.values())
    return sympy.sympify(function(**symbols))


def as_json(found: Explanation) -> dict[str, Any]:
    """The explanation as plain values: `expression` at `symbols`' values is `value` again, within 1e-12."""
    expression = str(expression_of(found))
    pretty, latex = equation_of(found)
    return {
        "key": found.key,
        "value": found.value,
        "unit": found.unit,
        "origin": found.origin,
        "meaning": found.meaning,
        "formula": found.formula,
        "expression": expression,
        "pretty": pretty,
        "latex": latex,
        "substituted": with_numbers(found),
        "evaluated": evaluated(expression, found.arguments),
        "symbols": {
            name: {
                "value": value,
                "symbol": quantity_of(name).symbol,
                "unit": quantity_of(name).unit,
                "meaning": quantity_of(name).meaning,
            }
            for name, value in found.arguments.items()
        },
        "source": found.source,
        "checked_against": found.checked_against,
        "assumptions": [a.model_dump() for a in found.assumptions],
        "parts": [as_json(part) for part in found.parts],
    }
