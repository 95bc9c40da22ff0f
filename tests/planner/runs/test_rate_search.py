"""The range test's rule: rates rise by one factor, the loss is smoothed, and the suggestion lies before the minimum."""

from __future__ import annotations

import csv
import io
import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner.report.rates import rate_search_text
from planner.runs.rate_search import BELOW_MINIMUM, csv_of, has_exploded, rates_between, search_of, smoothed
from tests.examples import examples

RATES = rates_between(1e-7, 1e-1, 61)  # ten a decade
# flat to 1e-5, falls to 1e-2, then rises
VALLEY = [5.0 if i < 20 else 5.0 - 3 * (i - 20) / 30 if i <= 50 else 2.0 + (i - 50) for i in range(61)]
LOSSES = st.lists(st.floats(0.01, 100.0), min_size=1, max_size=60)


@given(st.floats(1e-12, 1e-3), st.floats(1.5, 1e6), st.integers(2, 200))
@examples(50)
def test_each_rate_is_the_one_before_by_the_same_factor(low: float, ratio: float, steps: int) -> None:
    rates = rates_between(low, low * ratio, steps)
    assert len(rates) == steps and rates[0] == low and rates[-1] == low * ratio
    factor = ratio ** (1 / (steps - 1))
    assert all(after / before == pytest.approx(factor, rel=1e-9) for before, after in pairwise(rates))


@given(LOSSES, st.floats(0.0, 0.99))
@examples(50)
def test_the_smoothed_loss_is_a_mean_of_the_losses_so_far(losses: list[float], share: float) -> None:
    curve = smoothed(losses, share)
    assert len(curve) == len(losses) and curve[0] == pytest.approx(losses[0])
    for k, value in enumerate(curve, start=1):
        assert min(losses[:k]) * (1 - 1e-9) <= value <= max(losses[:k]) * (1 + 1e-9)


def test_the_smoothed_loss_by_hand() -> None:
    assert smoothed([3.0, 3.0, 3.0]) == pytest.approx((3.0, 3.0, 3.0))
    assert smoothed([1.0, 2.0], 0.5) == pytest.approx((1.0, (0.25 + 1.0) / 0.75))


def test_an_explosion_is_a_multiple_of_the_lowest_loss_or_no_number() -> None:
    assert has_exploded([2.0, 2.0, 200.0]) and has_exploded([2.0, math.nan]) and has_exploded([2.0, math.inf])
    assert not has_exploded([2.0, 2.0, 3.0]) and not has_exploded([5.0])


def test_a_valley_suggests_a_rate_before_its_bottom() -> None:
    found = search_of(RATES, VALLEY)
    assert 1e-2 <= (found.minimum_rate or 0) < 3e-2  # the mean comes after the loss
    assert 1e-5 < (found.steepest_rate or 0) <= (found.minimum_rate or 0)
    assert found.suggested_peak_lr == min(found.steepest_rate or 0, (found.minimum_rate or 0) / 10)


@given(LOSSES)
@examples(100)
def test_a_suggestion_is_below_the_minimum_and_one_of_the_tested_decades(losses: list[float]) -> None:
    rates = rates_between(1e-7, 1e-1, max(2, len(losses)))[: len(losses)]
    found = search_of(rates, losses)
    if found.suggested_peak_lr is None:
        assert found.minimum_rate is None and found.steepest_rate is None and found.note
        return
    assert found.minimum_rate in rates and found.steepest_rate in rates
    assert found.suggested_peak_lr <= found.minimum_rate / BELOW_MINIMUM
    assert found.smoothed[rates.index(found.minimum_rate)] == min(found.smoothed)


def test_a_loss_that_never_falls_suggests_nothing_and_one_that_still_falls_asks_for_higher_rates() -> None:
    assert search_of(RATES, [5.0] * 61).suggested_peak_lr is None
    falling = search_of(RATES, [5 - i / 20 for i in range(61)])
    assert "still falls at the highest rate" in falling.note and falling.minimum_rate == 1e-1


def test_a_last_loss_that_is_not_finite_is_left_out() -> None:
    found = search_of(RATES[:4], [5.0, 4.0, 3.0, math.nan])
    assert found.exploded and found.losses == (5.0, 4.0, 3.0) and found.rates == RATES[:3]


def test_the_table_has_every_digit_and_the_text_a_plot() -> None:
    found = search_of(RATES, VALLEY)
    rows = list(csv.DictReader(io.StringIO(csv_of(found))))
    assert [float(row["learning_rate"]) for row in rows] == list(RATES)
    assert [float(row["smoothed_loss"]) for row in rows] == list(found.smoothed)
    shown = rate_search_text(found, width=80, plain=True)
    assert "suggested --peak-lr" in shown and shown.isascii()
