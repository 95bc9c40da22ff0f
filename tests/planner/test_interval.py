"""An interval keeps its order under every operation, and a document has it as three keys."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner.interval import UNKNOWN, Interval, exactly, flattened

NUMBERS = st.floats(1e-6, 1e12)
INTERVALS = st.lists(NUMBERS, min_size=3, max_size=3).map(lambda ends: Interval(*sorted(ends)))


def in_order(found: Interval[float]) -> bool:
    assert found.low is not None and found.value is not None and found.high is not None
    return found.low <= found.value <= found.high


@given(INTERVALS, NUMBERS)
def test_a_monotone_function_keeps_the_order_and_moves_the_value(some: Interval[float], by: float) -> None:
    rising, falling = some.map(lambda x: x * by), some.map(lambda x: by / x)
    assert in_order(rising) and in_order(falling)
    assert some.low is not None and some.high is not None and some.value is not None
    assert (rising.low, rising.high) == (some.low * by, some.high * by)
    assert (falling.low, falling.high) == (by / some.high, by / some.low)
    assert (rising.value, falling.value) == (some.value * by, by / some.value)


@given(INTERVALS, INTERVALS)
def test_a_product_keeps_the_order(some: Interval[float], other: Interval[float]) -> None:
    found = some.times(other, lambda a, b: a * b)
    assert in_order(found)
    assert some.low is not None and other.low is not None and found.low == some.low * other.low
    assert some.high is not None and other.high is not None and found.high == some.high * other.high


def test_unknown_stays_unknown() -> None:
    assert UNKNOWN.map(lambda x: x * 2) == UNKNOWN == exactly(None)
    assert UNKNOWN.times(exactly(2.0), lambda a, b: a * b) == UNKNOWN
    assert exactly(2.0).times(UNKNOWN, lambda a, b: a * b) == UNKNOWN
    assert UNKNOWN.width is None and exactly(2.0).width == 0 and Interval(1, 2, 5).width == 1.5


@pytest.mark.parametrize("ends", [(2, 1, 3), (1, 3, 2), (None, 1, 2), (1, None, 2), (1, 2, None)])
def test_ends_out_of_order_or_half_unknown_are_no_interval(ends: tuple[int | None, ...]) -> None:
    with pytest.raises(AssertionError):
        Interval(*ends)


def test_a_document_has_three_keys_in_their_place() -> None:
    @dataclass(frozen=True)
    class Inner:
        seconds: Interval[float]
        names: tuple[str, ...]

    @dataclass(frozen=True)
    class Outer:
        first: int
        bytes: Interval[int]
        inner: dict[str, Inner]

    number = 1234.5
    found = flattened(Outer(1, Interval(1, 2, 3), {"a": Inner(exactly(number), ("x",))}))
    assert found == {
        "first": 1,
        "bytes": 2,
        "bytes_low": 1,
        "bytes_high": 3,
        "inner": {"a": {"seconds": number, "seconds_low": number, "seconds_high": number, "names": ["x"]}},
    }
    assert list(found) == ["first", "bytes", "bytes_low", "bytes_high", "inner"]
    assert found["inner"]["a"]["seconds"] is number  # `explain` follows a number by its identity
