"""Schedules: the worked answers of every kind, their breakpoints by sympy, and what holds for any of them."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from planner.config.run import ScheduleConfig
from planner.counts.schedule import KINDS, continuity, key_steps, schedule_rate
from planner.errors import InputError, UnknownNameError
from planner.inputs.flags import Flags
from planner.inputs.schedule import Horizon, schedule_alone

P, TO_ZERO = {"peak_lr": 3e-4, "min_lr": 3e-5}, {"peak_lr": 3e-4, "min_lr": 0.0}
LONG = {**P, "warmup_steps": 2000}

# (values of the schedule, T, k, the rate and its tolerance): recomputed by hand in float64
ANSWERS: list[tuple[str, dict[str, Any], int, int, float, float]] = [
    ("2.1", {**TO_ZERO, "warmup_steps": 2000}, 10_000, 500, 7.5e-5, 1e-12),
    ("2.2", {"peak_lr": 1e-4, "min_lr": 0.0, "warmup_steps": 1000}, 10_000, 500, 5e-5, 1e-12),
    ("2.3", LONG, 10_000, 6000, 1.65e-4, 1e-12),
    ("2.4", {**TO_ZERO, "warmup_steps": 2000}, 100_000, 0, 0.0, 0),
    ("2.4", {**TO_ZERO, "warmup_steps": 2000}, 100_000, 1000, 1.5e-4, 1e-12),
    ("2.4", {**TO_ZERO, "warmup_steps": 2000}, 100_000, 2000, 3e-4, 0),
    ("2.4", {**TO_ZERO, "warmup_steps": 2000}, 100_000, 50_000, 1.5481e-4, 4e-5),
    ("2.4", {**TO_ZERO, "warmup_steps": 2000}, 100_000, 100_000, 0.0, 0),
    ("2.7", {**LONG, "kind": "linear"}, 10_000, 6000, 1.65e-4, 1e-12),
    ("2.7", {**LONG, "kind": "polynomial", "decay_power": 2.0}, 10_000, 6000, 9.75e-5, 1e-12),
    ("2.7", {**LONG, "kind": "inverse_sqrt"}, 10_000, 8000, 1.5e-4, 1e-12),
    ("2.7", {**LONG, "kind": "wsd", "cooldown_steps": 2000}, 10_000, 9000, 1.65e-4, 1e-12),
    ("2.7", {**LONG, "kind": "wsd", "cooldown_steps": 2000}, 10_000, 8000, 3e-4, 0),
    ("2.6", {**LONG, "kind": "constant"}, 10_000, 10_000, 3e-4, 0),
    ("2.6", {**LONG, "kind": "inverse_sqrt"}, 10**9, 10**9, 3e-5, 0),  # the floor holds it
    *(
        ("2.8", {"peak_lr": 3e-4, "min_lr": 1e-5, "warmup_steps": 10}, 100, k, rate * 1e-4, 3e-4)
        for k, rate in zip(
            range(10, 100, 10), [3.000, 2.913, 2.661, 2.275, 1.802, 1.298, 0.8250, 0.4392, 0.1874], strict=True
        )
    ),
    ("2.9", LONG, 10_000, 25_000, 3e-5, 1e-12),
    ("2.9", {**LONG, "kind": "inverse_sqrt"}, 8000, 25_000, 1.5e-4, 1e-12),
    ("2.9", {**LONG, "kind": "wsd", "cooldown_steps": 2000}, 10_000, 10**18, 3e-5, 0),
    ("2.10", LONG, 10_000, 1, 1.5e-7, 1e-12),
    ("2.10", {**P, "warmup_steps": 0}, 100, 0, 3e-4, 0),
    ("2.10", {**P, "warmup_steps": 100}, 100, 100, 3e-4, 0),
    ("2.10", {**P, "warmup_steps": 100}, 100, 50, 1.5e-4, 1e-12),
    ("2.10", {**P, "warmup_steps": 0, "kind": "inverse_sqrt"}, 100, 1, 3e-4, 0),
    ("2.10", {**P, "warmup_steps": 0, "kind": "inverse_sqrt"}, 100, 4, 1.5e-4, 1e-12),
]


@pytest.mark.parametrize("row, values, steps, step, rate, tolerance", ANSWERS)
def test_answer(row: str, values: dict[str, Any], steps: int, step: int, rate: float, tolerance: float) -> None:
    found = schedule_rate(ScheduleConfig(**values), steps, step)
    assert found == (pytest.approx(rate, rel=tolerance, abs=0) if tolerance else rate), row


@pytest.mark.parametrize("kind", KINDS)
def test_2_5_neighbouring_segments_meet(kind: str) -> None:
    """Both branches give the peak at W, a cooldown begins at the peak, and a decay ends at min_lr."""
    breakpoints = continuity(kind)
    assert all(one.equal for one in breakpoints)
    first = breakpoints[0]
    assert (first.at, first.left_piece, first.left, first.right) == ("W", "warm-up", "p", "p")
    ends = {"constant": "p", "inverse_sqrt": "Max(f, sqrt(W)*p/sqrt(T))"}
    assert (breakpoints[-1].at, breakpoints[-1].left) == ("T", ends.get(kind, "f"))
    assert [j.at for j in breakpoints[1:-1]] == (["T - C"] if kind == "wsd" else [])


def test_a_gap_between_pieces_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    from planner.counts import schedule as rates

    monkeypatch.setitem(rates.DECAYS, "cosine", rates.warmup_rate)
    assert [one.equal for one in continuity("cosine")] == [True, False]


STEPS = st.integers(1, 10**6)


@st.composite
def schedules(draw: st.DrawFn) -> tuple[ScheduleConfig, int]:
    steps, kind = draw(STEPS), draw(st.sampled_from(KINDS))
    peak = draw(st.floats(1e-9, 10))
    warmup = draw(st.integers(0, steps))
    return ScheduleConfig(
        kind=kind,
        peak_lr=peak,
        min_lr=peak * draw(st.floats(0, 1)),
        warmup_steps=warmup,
        cooldown_steps=draw(st.integers(0, steps - warmup)) if kind == "wsd" else 0,
        decay_power=draw(st.floats(0.1, 10)),
    ), steps


@given(drawn=schedules(), data=st.data())
def test_a_rate_lies_between_floor_and_peak_and_falls_after_warm_up(
    drawn: tuple[ScheduleConfig, int], data: st.DataObject
) -> None:
    schedule, steps = drawn
    first, second = sorted(data.draw(st.tuples(STEPS, STEPS)))
    early, late = schedule_rate(schedule, steps, first), schedule_rate(schedule, steps, second)
    bit = 1e-12 * schedule.peak_lr  # of rounding
    assert 0 < early <= schedule.peak_lr + bit or (early == 0 == schedule.min_lr)
    if first >= schedule.warmup_steps:
        assert schedule.min_lr - bit <= late <= early + bit
    elif second <= schedule.warmup_steps:
        assert early <= late + bit
    assert schedule_rate(schedule, steps, schedule.warmup_steps) == schedule.peak_lr
    assert schedule_rate(schedule, steps, steps + first) == schedule_rate(schedule, steps, steps)


@given(drawn=schedules())
def test_key_steps_lie_within_the_run(drawn: tuple[ScheduleConfig, int]) -> None:
    schedule, steps = drawn
    marks = key_steps(schedule, steps)
    assert marks[0] == 0 and marks[-1] == steps and schedule.warmup_steps in marks
    assert list(marks) == sorted(set(marks)) and len(marks) <= 7


def alone(**flags: str) -> ScheduleConfig:
    return schedule_alone(Flags(peak_lr="3e-4", **flags))[0]


@given(part=st.sampled_from(["warmup", "cooldown"]), data=st.data(), steps=STEPS, per_step=st.integers(1, 10**7))
def test_units_of_a_length_agree(part: str, data: st.DataObject, steps: int, per_step: int) -> None:
    """Typed in steps, as their tokens, or as their share, a length is the same."""
    length = data.draw(st.integers(0, steps))
    run = {"steps": str(steps), "global_batch_tokens": str(per_step), "schedule": "wsd"}
    run |= {"cooldown_steps": "0"} if part == "warmup" else {"warmup_steps": "0"}
    texts = {"steps": str(length), "tokens": str(length * per_step), "ratio": repr(length / steps)}
    if "e" in texts["ratio"]:
        texts["ratio"] = f"{length / steps:.30f}"
    found = {getattr(alone(**run, **{f"{part}_{unit}": text}), f"{part}_steps") for unit, text in texts.items()}
    assert found == {length}


def test_defaults_and_their_rules() -> None:
    schedule, horizon, assumed = schedule_alone(Flags(peak_lr="3e-4", steps="10_000", schedule="wsd"))
    assert (schedule.warmup_steps, schedule.cooldown_steps, schedule.min_lr) == (200, 2000, 3e-5)
    assert (horizon.steps, horizon.tokens_per_step) == (10_000, None)
    said = {a.key: a.source for a in assumed}
    assert said.keys() == {"min_lr", "warmup_steps", "cooldown_steps"}
    assert "2405.18392" in said["cooldown_steps"]
    assert alone(steps="10", warmup_steps="9", schedule="wsd").cooldown_steps == 1
    assert alone(steps="10", warmup_steps="10", schedule="wsd").cooldown_steps == 0
    assert alone(steps="10").kind == "cosine"
    assert alone(steps="10", schedule="polynomial").decay_power == 2.0
    unused = schedule_alone(Flags(peak_lr="3e-4", steps="10_000", schedule="constant"))[2]
    assert "does not use it" in next(a.source for a in unused if a.key == "min_lr")


def test_a_schedule_names_the_flag_that_lengthens_it() -> None:
    by_tokens = Flags(peak_lr="3e-4", tokens="1M", global_batch_tokens="1000")
    assert schedule_alone(by_tokens)[1] == Horizon(1000, 1000, "--tokens")
    assert schedule_alone(Flags(peak_lr="3e-4", steps="10"))[1] == Horizon(10, None, "--steps")


def test_a_floor_in_percent_is_a_share_of_the_peak() -> None:
    assert alone(steps="10", min_lr="10%").min_lr == 3e-5
    assert alone(steps="10", min_lr="0%").min_lr == alone(steps="10", min_lr="0").min_lr == 0
    assert alone(steps="10", min_lr="0.0001").min_lr == 1e-4


def test_tokens_of_a_warm_up_are_rounded_up_to_steps() -> None:
    run = {"tokens": "1M", "global_batch_tokens": "1000"}
    assert alone(**run, warmup_tokens="1001").warmup_steps == 2
    assert alone(**run, warmup_tokens="1000").warmup_steps == 1
    assert math.isclose(schedule_rate(alone(**run, warmup_tokens="1001"), 1000, 1), 1.5e-4)


@pytest.mark.parametrize(
    "flags, words",
    [
        ({}, "the length of the run is missing"),
        ({"tokens": "1M"}, "the tokens of one step are missing"),
        ({"tokens": "1", "global_batch_tokens": "2"}, "less than one step"),
        ({"steps": "10", "warmup_tokens": "5"}, "--warmup-tokens: the tokens of one step are not known"),
        ({"steps": "10", "warmup_steps": "11"}, "longer than the run"),
        ({"steps": "10", "schedule": "wsd", "warmup_steps": "5", "cooldown_steps": "6"}, "at most 5 steps"),
        ({"steps": "10", "schedule": "linear", "cooldown_ratio": "10%"}, "--cooldown-ratio has no effect"),
        ({"steps": "10", "schedule": "cosine", "decay_power": "3"}, "--decay-power has no effect"),
        ({"steps": "10", "schedule": "constant", "min_lr": "0"}, "--min-lr has no effect"),
        ({"steps": "10", "min_lr": "1"}, "above peak_lr"),
        ({"steps": "10", "tokens": "10"}, "contradict"),
    ],
)
def test_mistake(flags: dict[str, str], words: str) -> None:
    with pytest.raises(InputError, match=words):
        alone(**flags)


def test_unknown_kind_and_missing_peak() -> None:
    with pytest.raises(UnknownNameError, match="did you mean cosine"):
        alone(steps="10", schedule="cosin")
    with pytest.raises(InputError, match="--peak-lr is missing"):
        schedule_alone(Flags(steps="10"))


def test_the_config_refuses_what_has_no_effect() -> None:
    with pytest.raises(ValidationError, match="only a wsd rate has a cooldown"):
        ScheduleConfig(**LONG, cooldown_steps=5)
    with pytest.raises(ValidationError, match="the rate would rise"):
        ScheduleConfig(peak_lr=1.0, min_lr=2.0, warmup_steps=0)
    assert ScheduleConfig(**LONG) == ScheduleConfig(**LONG, kind="cosine", cooldown_steps=0, decay_power=2.0)
