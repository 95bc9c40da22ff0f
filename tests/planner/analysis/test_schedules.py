"""Schedule curves: the variants of --over, the steps shown, the plot in characters, the values in CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner.analysis.schedules import Curve, csv_text, curve_alone, sampled_steps, steps_shown, variants
from planner.errors import InputError, UnitError, UnknownNameError
from planner.inputs.flags import Flags
from planner.report.plot import ASCII_MARKS, BRAILLE, CURVE_MARKS, legend, plot

BASE = Flags(peak_lr="3e-4", min_lr="3e-5", warmup_steps="2000", steps="10_000")


def curves(text: str, flags: Flags = BASE) -> tuple[Curve, ...]:
    return tuple(curve_alone(each, label) for label, each in variants(text, flags))


def test_over_a_warm_up() -> None:
    found = curves("warmup=500,2k,5%", Flags(peak_lr="3e-4", steps="100k", warmup_tokens="1M"))
    assert [c.label for c in found] == ["warmup=500", "warmup=2k", "warmup=5%"]
    assert [c.schedule.warmup_steps for c in found] == [500, 2000, 5000]


def test_over_the_kinds_flags_leave_where_they_have_no_effect() -> None:
    from dataclasses import replace

    found = curves("kind=cosine,wsd,constant,polynomial", replace(BASE, cooldown_steps="1000", decay_power="3"))
    assert [c.schedule.kind for c in found] == ["cosine", "wsd", "constant", "polynomial"]
    assert [c.schedule.cooldown_steps for c in found] == [0, 1000, 0, 0]
    assert found[-1].schedule.decay_power == 3


@pytest.mark.parametrize(
    "text, values",
    [
        ("peak-lr=1e-4,2e-4", [1e-4, 2e-4]),
        ("steps=3000,4k", [3000, 4000]),
        ("power=1,3", [1, 3]),
        ("cooldown=10%,5", [1000, 5]),
    ],
)
def test_over_any_flag_of_a_schedule(text: str, values: list[float]) -> None:
    kind = {"power": "polynomial", "cooldown": "wsd"}.get(text.partition("=")[0])
    found = curves(text, Flags(peak_lr="3e-4", steps="10_000", warmup_steps="2000", schedule=kind))
    seen = [(c.schedule.peak_lr, c.steps, c.schedule.decay_power, c.schedule.cooldown_steps) for c in found]
    assert all(value in row for value, row in zip(values, seen, strict=True)), seen


@pytest.mark.parametrize("text", ["warmup", "warmup=", "=5", "warmup=1,,2", "warmup=1,1", "warmup=1,2,3,4,5,6,7,8,9"])
def test_over_refuses(text: str) -> None:
    with pytest.raises(InputError):
        variants(text, BASE)


def test_over_an_unknown_flag_names_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="warmup"):
        variants("warm=1,2", BASE)
    with pytest.raises(UnknownNameError):
        variants("hidden=1,2", BASE)


def test_steps_shown() -> None:
    assert steps_shown(None, None, 10) == ()
    assert steps_shown("6000,5,0,2k", None, 10) == (0, 5, 2000, 6000)
    assert steps_shown(None, "4", 10) == (4, 8, 10)
    assert steps_shown("9", "5", 10) == (5, 9, 10)
    with pytest.raises(UnitError, match="--at"):
        steps_shown("5,x", None, 10)
    with pytest.raises(UnitError, match="--every"):
        steps_shown(None, "0", 10)
    with pytest.raises(InputError, match="give --every 1,000,000,000,000 or more"):
        steps_shown(None, "1", 10**18)


def test_csv_reads_back_to_the_rates() -> None:
    (curve,) = curves("kind=cosine")
    rows = list(csv.DictReader(io.StringIO(csv_text([curve], [0, 6000, 10_000]))))
    assert [(int(r["step"]), float(r["learning_rate"])) for r in rows] == [
        (k, curve.rate(k)) for k in (0, 6000, 10_000)
    ]
    both = list(csv.reader(io.StringIO(csv_text(curves("kind=cosine,linear"), [6000]))))
    assert both[0] == ["step", "kind=cosine", "kind=linear"]
    tokens = curve_alone(Flags(peak_lr="1", tokens="1M", global_batch_tokens="1k"))
    assert csv_text([tokens], [10]).splitlines() == ["step,tokens,learning_rate", "10,10000,0.5"]


def test_samples_hold_the_key_steps_and_both_ends() -> None:
    found = sampled_steps(curves("warmup=7,2001"))
    assert {0, 7, 2001, 10_000} <= set(found) and 1000 < len(found) < 1020
    assert sampled_steps(curves("steps=2,3", Flags(peak_lr="1", warmup_steps="1"))) == (0, 1, 2, 3)


def rates(count: int) -> list:  # type: ignore[type-arg]
    return [c.rate for c in curves("warmup=0,1000,2000,3000,4000,5000,6000,7000")][:count]


@given(width=st.integers(1, 200), height=st.integers(2, 40), count=st.integers(1, 8), plain=st.booleans())
def test_a_plot_keeps_its_size_and_shows_every_curve(width: int, height: int, count: int, plain: bool) -> None:
    lines = plot(rates(count), 10_000, width=width, height=height, plain=plain)
    assert len(lines) == height + 2
    if width >= 40:
        assert max(map(len, lines)) <= width
    text = "\n".join(lines)
    if plain:
        assert text.isascii()
    if count == 1 and not plain:
        assert any(ord(c) > BRAILLE for c in text)
    elif width >= 60 and height >= 8:
        assert set((ASCII_MARKS if plain else CURVE_MARKS)[:count]) <= set(text)


def test_a_constant_fills_one_row_and_a_ramp_the_diagonal() -> None:
    flat = plot([lambda k: 1.0], 100, width=30, height=5, plain=True)
    assert flat[0].count("*") == len(flat[0]) - flat[0].index("*") and not any("*" in line for line in flat[1:])
    ramp = plot([float], 100, width=30, height=5, plain=True)
    starts = [line.index("*") for line in ramp[:5]]
    assert starts == sorted(starts, reverse=True) and len(set(starts)) == 5
    assert ramp[-1].split() == ["0", "50", "100"]


@pytest.mark.parametrize("rate", [lambda k: float(k < 50), lambda k: float(k >= 50)], ids=["fall", "rise"])
def test_a_steep_part_is_drawn_without_gaps(rate: Callable[[int], float]) -> None:
    lines = plot([rate], 100, width=30, height=7, plain=True)[:7]
    assert all("*" in line for line in lines)


def test_curves_that_coincide_alternate_and_leave_no_gap() -> None:
    line = plot([lambda k: 1.0] * 2, 100, width=30, height=5, plain=True)[0]
    drawn = line[line.index("+") + 1 :]
    assert drawn == ("*o" * len(drawn))[: len(drawn)]


def test_the_legend_names_each_mark() -> None:
    assert legend(["a", "b"]) == f"{CURVE_MARKS[0]} a   {CURVE_MARKS[1]} b"
    assert legend(["a", "b"], plain=True) == "* a   o b"


def test_curves_that_do_not_coincide_have_a_mark_in_every_column() -> None:
    """Marks take turns only where curves lie on each other."""
    high, low = plot([lambda k: 1.0, lambda k: 0.25], 100, width=40, height=5, plain=True), ASCII_MARKS[1]
    assert high[0].count(ASCII_MARKS[0]) >= 30
    assert max(line.count(low) for line in high) >= 30
