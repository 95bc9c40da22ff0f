"""Ranges of good practice for batch, data and schedule: a value outside is a finding that names its source."""

from __future__ import annotations

import pytest

from planner.analysis.findings import findings
from planner.analysis.ranges import critical_batch_of, repetition_findings, schedule_findings
from planner.config.run import ScheduleConfig
from planner.finding import Finding
from planner.inputs.draft import draft
from planner.inputs.flags import Flags
from planner.plan import estimate

ABOUT = {"batch_tokens", "critical_batch", "few_steps", "tokens_per_parameter", "epochs", "peak_lr", "warmup"}
ABOUT |= {"zero_floor", "no_cooldown", "no_warmup", "only_warmup", "no_bf16"}
SMALL, LARGE = {"params": "125M"}, {"model": "llama-2-70b", "seq": "4096"}


def found(**flags: str) -> dict[str, Finding]:
    config = draft(Flags(gpu="a100-80gb", **flags), as_of="2026-11-21", version="test")
    return {f.code: f for f in findings(estimate(config)) if f.code in ABOUT}


@pytest.mark.parametrize(
    "flags",
    [
        {**SMALL, "tokens": "10B"},
        {**SMALL, "tokens": "10B", "peak_lr": "3e-4", "warmup_steps": "2000"},  # 2.7: 10.5 % is fine, 2,000 steps are
        {**SMALL, "tokens": "10B", "warmup_ratio": "5%"},  # the general range
        {**SMALL, "tokens": "10B", "schedule": "constant"},
        {**SMALL, "tokens": "10B", "schedule": "inverse_sqrt"},
        {**SMALL, "tokens": "10B", "schedule": "wsd"},
        {**SMALL, "tokens": "10B", "dataset_tokens": "10B"},
        {**LARGE, "tokens": "2T", "global_batch_tokens": "4Mi", "peak_lr": "1.5e-4", "warmup_steps": "2000"},
        {**LARGE, "tokens": "2T", "global_batch_tokens": "4Mi", "peak_lr": "3e-4", "warmup_ratio": "0.1%"},
    ],
)
def test_good_practice_is_silent(flags: dict[str, str]) -> None:
    assert found(**flags) == {}


@pytest.mark.parametrize(
    "flags, code, level, words",
    [
        ({"peak_lr": "2e-4"}, "peak_lr", "note", "3e-4 to 6e-4"),
        ({"peak_lr": "2e-4"}, "peak_lr", "note", "GPT-3 table 2.1"),
        ({"peak_lr": "7e-4"}, "peak_lr", "note", "it may diverge"),
        ({"peak_lr": "1.3e-3"}, "peak_lr", "warning", "it may diverge"),
        ({"warmup_steps": "50"}, "warmup", "note", "1,000 to 2,000 steps or 1 % to 2 %"),
        ({"warmup_steps": "50"}, "warmup", "note", "early updates may be too large"),
        ({"warmup_ratio": "30%"}, "warmup", "note", "many steps have a low learning rate"),
        ({"warmup_steps": "0"}, "no_warmup", "warning", "Adam's averages are reliable"),
        ({"warmup_steps": "0", "schedule": "inverse_sqrt"}, "no_warmup", "warning", "halves the rate by update 4"),
        ({"warmup_ratio": "100%"}, "only_warmup", "note", "only the last update has the peak rate"),
        ({"min_lr": "0"}, "zero_floor", "warning", "the last updates change almost nothing"),
        ({"min_lr": "0%", "schedule": "linear"}, "zero_floor", "warning", "the last updates change almost nothing"),
        ({"min_lr": "0", "schedule": "wsd"}, "zero_floor", "warning", "the last updates change almost nothing"),
        ({"schedule": "wsd", "cooldown_steps": "0"}, "no_cooldown", "note", "noise of the peak rate"),
        ({"global_batch_tokens": "128Ki"}, "batch_tokens", "note", "250,000 to 1M"),
        ({"global_batch_tokens": "2Mi"}, "batch_tokens", "note", "steps are fewer and less efficient"),
        ({"global_batch_tokens": "2Mi"}, "critical_batch", "note", "Kaplan et al. 2020"),
        ({"dataset_tokens": "4B"}, "epochs", "note", "up to 4 epochs nearly as good as new"),
        ({"dataset_tokens": "2B"}, "epochs", "warning", "beyond about 4 epochs"),
        ({"precision": "fp32"}, "no_bf16", "note", "a100-80gb has bf16"),
    ],
)
def test_finding(flags: dict[str, str], code: str, level: str, words: str) -> None:
    finding = found(**SMALL, tokens="10B", **flags)[code]
    assert finding.level == level and finding.remedy
    assert words in finding.message


def test_a_floor_of_zero_that_is_never_reached_is_no_finding() -> None:
    for kind in ("inverse_sqrt", "constant", "wsd"):
        schedule = ScheduleConfig(kind=kind, peak_lr=3e-4, min_lr=0.0, warmup_steps=30)
        assert "zero_floor" not in {f.code for f in schedule_findings(schedule, 1000, None)}
    ended = ScheduleConfig(peak_lr=3e-4, min_lr=0.0, warmup_steps=1000)
    assert "zero_floor" not in {f.code for f in schedule_findings(ended, 1000, None)}


def test_without_a_model_the_general_ranges_hold() -> None:
    fine = ScheduleConfig(peak_lr=1e-4, min_lr=1e-5, warmup_steps=50)
    assert not list(schedule_findings(fine, 1000, None))
    odd = ScheduleConfig(peak_lr=9e-5, min_lr=1e-5, warmup_steps=51)
    assert [f.code for f in schedule_findings(odd, 1000, None)] == ["peak_lr", "warmup"]


def test_repeated_data_is_worth_less_and_less() -> None:
    """D' = U + U R* (1 - exp(-(D/U - 1)/R*)) with R* = 15.39: four epochs are worth 3.73, by hand."""
    assert not list(repetition_findings(100, 100))
    (four,) = repetition_findings(4_000_000_000, 1_000_000_000)
    assert four.level == "note" and "worth 3.73B" in four.message
    (many,) = repetition_findings(100_000_000_000, 1_000_000_000)
    assert many.level == "warning" and "worth 16.4B" in many.message


def test_the_critical_batch_of_gpt2_small_and_of_a_large_model() -> None:
    """By hand: (6.4e13/85e6)^(0.076/0.103) + 1.8e13/1e10, to the 0.103; then 2e8 / loss^(1/0.21)."""
    batch, loss = critical_batch_of(85_000_000, 10**10)
    assert loss == pytest.approx(2.8197, abs=1e-4)
    assert batch == pytest.approx(1.436e6, rel=1e-3)
    assert critical_batch_of(405 * 10**9, 15 * 10**12)[0] > 16e6
