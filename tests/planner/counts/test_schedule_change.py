"""The learning rate at the step where a run with a changed schedule continues."""

from __future__ import annotations

from typing import Any

import pytest

from planner.config.resume import settings_of
from planner.config.run import RunConfig
from planner.counts.run import rate_at
from planner.counts.schedule_change import schedule_change
from planner.inputs.draft import draft
from planner.inputs.flags import Flags


def planned(**flags: str) -> RunConfig:
    words = {"params": "125M", "steps": "1000", "gpu": "a100-80gb", "peak_lr": "1e-3"} | flags
    return draft(Flags(**words), as_of="2026-11-21", version="test")


BEFORE = planned()


def test_the_same_schedule_has_no_message() -> None:
    assert schedule_change(settings_of(BEFORE), BEFORE, 500) is None
    assert schedule_change(settings_of(BEFORE), planned(seed="9", checkpoint_every="7"), 500) is None


@pytest.mark.parametrize("flags", [{"peak_lr": "2e-3"}, {"steps": "4000"}, {"schedule": "linear"}])
def test_a_changed_one_says_the_old_and_the_new_rate(flags: dict[str, str]) -> None:
    now = planned(**flags)
    old, new = rate_at(BEFORE, 701), rate_at(now, 701)
    said = schedule_change(settings_of(BEFORE), now, 701)
    assert said is not None and old != new
    assert f"at step 701 the learning rate jumps from {old:.3g} to {new:.3g}, {new / old:.3g} times" in said


def test_a_change_that_comes_later_says_that_the_rate_is_the_same() -> None:
    constant = {"schedule": "wsd", "cooldown_steps": "100"}
    said = schedule_change(settings_of(planned(**constant)), planned(**constant | {"cooldown_steps": "200"}), 500)
    assert said == "the schedule was changed: at step 500 the learning rate is 0.001 under both"


def test_settings_of_another_version_have_no_message() -> None:
    settings: dict[str, Any] = settings_of(BEFORE)
    assert schedule_change(settings | {"schedule.later": 1}, planned(peak_lr="2e-3"), 5) is None
    assert schedule_change({}, planned(peak_lr="2e-3"), 5) is None
