"""The few operations that are not operators, for a number, a numpy array and a sympy symbol alike.

A formula may use these and + - * / **, nothing else. numpy and sympy are looked up only when such a value
arrives: importing them costs 0.1 to 0.3 s, which `estimate` never pays.
"""

from __future__ import annotations

import math
import sys
from typing import Any

# A formula's value: int or float, numpy array of float64, or sympy expression.
Num = Any


def _numpy_of(*values: Num) -> Any:
    numpy = sys.modules.get("numpy")
    return numpy if numpy is not None and any(isinstance(v, numpy.ndarray | numpy.generic) for v in values) else None


def _is_plain(*values: Num) -> bool:
    return all(isinstance(v, int | float) for v in values)


def ceil_div(value: Num, divisor: Num) -> Num:
    """Smallest whole number of `divisor`s that holds `value`."""
    if _is_plain(value, divisor):
        return -(-value // divisor)
    if numpy := _numpy_of(value, divisor):
        return numpy.ceil(numpy.asarray(value) / divisor)
    import sympy  # 0.25 s, only when a symbol is passed

    return sympy.ceiling(value / divisor)


def floor_div(value: Num, divisor: Num) -> Num:
    """Whole number of `divisor`s in `value`."""
    if _is_plain(value, divisor):
        return value // divisor
    if numpy := _numpy_of(value, divisor):
        return numpy.floor(numpy.asarray(value) / divisor)
    import sympy

    return sympy.floor(value / divisor)


def maximum(first: Num, second: Num) -> Num:
    """The larger of the two."""
    if _is_plain(first, second):
        return max(first, second)
    if numpy := _numpy_of(first, second):
        return numpy.maximum(first, second)
    import sympy

    return sympy.Max(first, second)


def minimum(first: Num, second: Num) -> Num:
    """The smaller of the two."""
    if _is_plain(first, second):
        return min(first, second)
    if numpy := _numpy_of(first, second):
        return numpy.minimum(first, second)
    import sympy

    return sympy.Min(first, second)


def _elementary(name: str, value: Num) -> Num:
    if _is_plain(value):
        return getattr(math, name)(value)
    if numpy := _numpy_of(value):
        return getattr(numpy, name)(value)
    import sympy

    return getattr(sympy, name)(value)


def cos(value: Num) -> Num:
    """Cosine of an angle in radians."""
    return _elementary("cos", value)


def exp(value: Num) -> Num:
    """The exponential function."""
    return _elementary("exp", value)


def sqrt(value: Num) -> Num:
    """Square root."""
    return _elementary("sqrt", value)


def log(value: Num) -> Num:
    """Natural logarithm."""
    return _elementary("log", value)


def pi_like(value: Num) -> Num:
    """Pi, exact when `value` is symbolic, so that cos(pi) is -1 and not a rounded neighbour."""
    if _is_plain(value) or _numpy_of(value):
        return math.pi
    import sympy

    return sympy.pi
