"""One formula, written once: float, array and symbol agree, dimensions are right, sources are there."""

from __future__ import annotations

import ast
import inspect
from typing import Any

import numpy
import pint
import pytest
import sympy

# importing the topics registers their formulas
from planner.formulas import activations, batch, cost, duration, flops, memory, params, schedule, throughput  # noqa: F401
from planner.formulas.formula import FORMULAS, Formula
from planner.formulas.quantities import QUANTITIES

UNITS = pint.UnitRegistry()
UNITS.define("USD = [currency]")
for counted in ("token", "parameter", "sequence", "FLOP"):
    UNITS.define(f"{counted} = []")
LARGEST_LITERAL = 1000


def values_for(formula: Formula, seed: int) -> dict[str, float]:
    """Whole numbers that keep divisions and shares sensible: later arguments are not larger than earlier ones."""
    random = numpy.random.default_rng(seed)
    found = {name: float(random.integers(2, 60)) for name in formula.arguments}
    if {"step", "warmup_steps", "steps"} <= found.keys():
        found |= {"warmup_steps": 10.0, "step": 25.0, "steps": 90.0}
    return found


ALL = pytest.mark.parametrize("name", sorted(FORMULAS))


@ALL
def test_float_array_and_symbol_agree(name: str) -> None:
    formula = FORMULAS[name]
    for seed in range(3):
        values = values_for(formula, seed)
        plain = formula.function(**values)
        array = formula.function(**{k: numpy.array([v, v]) for k, v in values.items()})
        symbols = {k: sympy.Symbol(k, positive=True) for k in values}
        symbolic = formula.function(**symbols)
        exact = sympy.sympify(symbolic).subs({symbols[k]: sympy.Rational(v) for k, v in values.items()})
        assert numpy.allclose(array, plain, rtol=1e-12, atol=0)
        assert float(exact) == pytest.approx(plain, rel=1e-12)


@ALL
def test_whole_numbers_stay_exact(name: str) -> None:
    """Integers go in, the same integer comes out however large: no float on the way where there is no division."""
    formula = FORMULAS[name]
    source = inspect.getsource(formula.function)
    if "/" in source.partition('"""')[2].rpartition('"""')[2] or "seconds" in formula.gives or "cos" in source:
        pytest.skip("has a division")
    values = {k: int(v) for k, v in values_for(formula, 1).items()}
    assert isinstance(formula.function(**values), int)


@ALL
def test_source_and_meaning(name: str) -> None:
    formula = FORMULAS[name]
    assert len(formula.source) > 9 and formula.function.__doc__
    for quantity in (formula.gives, *formula.arguments):
        assert QUANTITIES[quantity].meaning


@ALL
def test_no_unit_factor_stands_in_a_formula(name: str) -> None:
    tree = ast.parse(inspect.getsource(FORMULAS[name].function))
    literals = [n.value for n in ast.walk(tree) if isinstance(n, ast.Constant) and isinstance(n.value, int | float)]
    assert all(value <= LARGEST_LITERAL for value in literals), literals


def unit_of(name: str) -> Any:
    text = QUANTITIES[name].unit.replace("byte", "token")  # pint's byte is 8 bits; here it only counts
    return UNITS.parse_units(text)


@ALL
def test_dimensions(name: str) -> None:
    """Seconds, dollars, joules and kilograms come out where they should; counts have no dimension."""
    formula = FORMULAS[name]
    if "cos(" in inspect.getsource(formula.function) or formula.gives in ("sequences_per_step", "steps"):
        pytest.skip("counts only")
    quantities = {k: v * unit_of(k) for k, v in values_for(formula, 2).items()}
    if {"compute_seconds", "seconds"} <= quantities.keys():
        pytest.skip("a maximum with the pure number 0")
    if "least_seconds" in quantities:
        pytest.skip("a maximum of two quantities with units")
    plain = {k: q if q.dimensionality else q.magnitude for k, q in quantities.items()}
    found = formula.function(**plain)
    dimensionality = getattr(found, "dimensionality", UNITS.dimensionless.dimensionality)
    assert dimensionality == (1 * unit_of(formula.gives)).dimensionality
