"""A number with the ends of its interval: the one form of everything that is predicted with an uncertainty."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, Generic, TypeVar

Real = TypeVar("Real", int, float)
KEY_ENDS = {"": "value", "_low": "low", "_high": "high"}  # how the keys of a document end, and in which order


@dataclass(frozen=True, slots=True)
class Interval(Generic[Real]):
    """low <= value <= high in one unit; all three None: unknown. Without arguments it is unknown."""

    low: Real | None = None
    value: Real | None = None
    high: Real | None = None

    def __post_init__(self) -> None:
        if self.low is None or self.value is None or self.high is None:
            assert self.low is self.value is self.high is None, self
        else:
            assert not (self.low > self.value or self.value > self.high), self  # a measured NaN is in no order

    @property
    def width(self) -> float | None:
        """How far the upper end lies above the value, as a fraction of it; None: unknown."""
        return self.high / self.value - 1 if self.value and self.high is not None else None

    def map(self, function: Callable[[Real], float]) -> Interval[float]:
        """The interval of a monotone function of the number, rising or falling; unknown stays unknown."""
        if self.low is None or self.value is None or self.high is None:
            return UNKNOWN
        value, one, other = function(self.value), function(self.low), function(self.high)
        return Interval(min(one, other), value, max(one, other))

    def times(self, other: Interval[float], product: Callable[[Real, float], float]) -> Interval[float]:
        """The interval of a product of two numbers, each at least 0; unknown if either is."""
        if self.value is None or other.value is None:
            return UNKNOWN
        assert self.low is not None and self.high is not None and other.low is not None and other.high is not None
        return Interval(product(self.low, other.low), product(self.value, other.value), product(self.high, other.high))


UNKNOWN: Interval[Any] = Interval()


def known(value: Real | None) -> Real:
    """An end of an interval that is known."""
    assert value is not None, "the interval is unknown"
    return value


def exactly(value: Real | None) -> Interval[Real]:
    """A number without uncertainty; of None, unknown."""
    return Interval(value, value, value)


def flattened(record: Any) -> dict[str, Any]:
    """A dataclass as plain values for JSON; of an Interval `x` three keys: x, x_low, x_high."""
    found: dict[str, Any] = {}
    for field in fields(record):
        value = getattr(record, field.name)
        if isinstance(value, Interval):
            found |= {f"{field.name}{end}": getattr(value, part) for end, part in KEY_ENDS.items()}
        else:
            found[field.name] = _plain(value)
    return found


def _plain(value: Any) -> Any:
    if is_dataclass(value):
        return flattened(value)
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items()}
    return [_plain(each) for each in value] if isinstance(value, list | tuple) else value
