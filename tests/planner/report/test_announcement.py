"""The line that `gptplan run` logs at its start, with and without a predicted speed."""

from __future__ import annotations

from planner.config.run import RunConfig
from planner.inputs.draft import draft
from planner.inputs.flags import Flags
from planner.plan import estimate
from planner.report.plan import announcement
from planner.units import format_bytes, format_duration, format_rate


def config_of(**flags: str) -> RunConfig:
    return draft(Flags(tokens="10B", **flags), as_of="2026-11-21", version="test")


def test_a_priced_run_names_speed_and_time() -> None:
    plan = estimate(config_of(params="125M", gpu="a100-80gb"))
    said = announcement(plan)
    assert said.startswith(f"124M parameters, {plan.batch.steps:,} steps of 524,288 tokens, mixed-bf16; predicted: ")
    speed, duration = plan.throughput.tokens_per_second.value, plan.time.seconds.value
    assert speed is not None and duration is not None
    peak = format_bytes(plan.memory.peak_requested_bytes)
    assert said.endswith(f": {format_rate(speed)}, {format_duration(duration)}, tensors need at most {peak}")


def test_an_unpriced_run_names_the_peak_and_says_that_the_speed_is_not_predicted() -> None:
    plan = estimate(config_of(params="125M", gpu="v100-32gb"))  # a card without bf16
    assert plan.throughput.tokens_per_second.value is None
    said = announcement(plan)
    assert "unknown" not in said and "tokens/s" not in said
    peak = format_bytes(plan.memory.peak_requested_bytes)
    assert said.endswith(f"; predicted: tensors need at most {peak}; the speed is not predicted, it will be measured")
