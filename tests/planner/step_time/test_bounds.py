"""Every part of a predicted step says what bounds it; parts add up; a plan says what would make its time narrower."""

from __future__ import annotations

import pytest

from planner.inputs.draft import draft
from planner.inputs.flags import Flags
from planner.plan import Plan, estimate
from planner.report.plan import summary


def planned(**words: str) -> Plan:
    typed = {"model": "gpt2-medium", "tokens": "10B", "gpu": "h100-80gb", "gpus": "1"} | words
    return estimate(draft(Flags(**typed), as_of="2026-11-21", version="test"))


RUNS = {
    "one GPU": {},
    "replicas": {"gpus": "16"},
    "FSDP2": {"gpus": "16", "fsdp": "fsdp"},
    "tensor and pipeline": {"gpus": "16", "tp": "2", "pp": "2", "vocab": "50304"},
    "context": {"gpus": "16", "cp": "2"},
    "experts": {"model": "olmoe-1b-7b", "gpus": "16", "ep": "8"},
    "offloaded": {"activation_checkpointing": "offloaded"},
}


@pytest.mark.parametrize("words", RUNS.values(), ids=RUNS)
def test_parts_add_up_and_each_is_bound_by_something(words: dict[str, str]) -> None:
    plan = planned(**words)
    speed = plan.throughput
    assert speed.step_seconds.value == pytest.approx(sum(speed.parts.values()))
    assert speed.parts.keys() == speed.bounds.keys() and all(speed.bounds.values())
    said = summary(plan, ())
    for name, seconds in speed.parts.items():
        assert (f"  {name} " in said) == (seconds > 0), name


def test_the_optimizer_is_bound_by_what_its_implementation_waits_for() -> None:
    found = {
        "memory bandwidth": planned(),
        "the host": planned(optimizer_implementation="for-loop"),
        "arithmetic": planned(optimizer="muon"),
    }
    assert all(plan.throughput.bounds["optimizer"] == bound for bound, plan in found.items())


def test_what_would_narrow_the_time() -> None:
    assert "--software: pytorch-2026 is assumed" in planned().throughput.narrowed_by
    known = planned(software="pytorch-2024")
    assert "calibrate" in known.throughput.narrowed_by
    assert known.throughput.step_seconds.width < planned().throughput.step_seconds.width
    many = planned(software="pytorch-2024", gpus="8").throughput.narrowed_by
    assert "--tokens-per-second" in many and "calibrate" not in many
    given = planned(tokens_per_second="100k")
    assert given.throughput.narrowed_by == "" and given.throughput.step_seconds.width == 0
    assert "part of a step" not in summary(given, ()) and "narrowed by" not in summary(given, ())
