"""Seconds of a step whose GPUs hold different parts: the slowest stage, the bubble, and what the parts exchange."""

from __future__ import annotations

from planner.counts.ranks import ranks_of, run_of_rank
from planner.counts.run import Resolved
from planner.formulas import collectives, throughput
from planner.formulas.recording import real
from planner.rules import rules
from planner.step_time.blocks import recomputed_fraction
from planner.step_time.collectives import (
    context_parallel_seconds,
    expert_parallel_seconds,
    stage_transfer_seconds,
    tensor_parallel_seconds_of,
    with_communication,
)
from planner.step_time.device import device_seconds, with_launches
from planner.step_time.rates import Rates
from planner.step_time.update import update_seconds


def layout_seconds(run: Resolved, rates: Rates) -> dict[str, float] | str:
    """Seconds of a step by part, of the stage that takes longest; why they are unknown, in words."""
    if rates.link is None:
        assert run.gpu is not None
        return f"the data sheet of {run.gpu.id} has no bandwidth of its links"
    stages = [run_of_rank(run, rank) for rank in ranks_of(run.config)]
    local, device = max(((stage, _micro_seconds(stage, rates)) for stage in stages), key=lambda s: sum(s[1].values()))
    micro, p, table = sum(device.values()), run.config.parallel, rules("time")["layouts"]
    # of the two directions of dualpipe each runs half of the micro-batches
    both = p.pp_schedule == "dualpipe"
    times = run.config.training.accumulation / (2 if both else 1)
    parts = {name: real(throughput.micro_batches_seconds(part, times)) for name, part in device.items()}
    filled = p.pp / 2 if both else p.pp
    waiting = table["bubble"][p.pp_schedule]
    parts["pipeline bubble"] = real(collectives.bubble_seconds(filled, p.interleave, micro, waiting))
    parts["optimizer"] = max(update_seconds(stage, rates) for stage in stages)
    return with_communication(parts, local, rates, micro)


def _micro_seconds(stage: Resolved, rates: Rates) -> dict[str, float]:
    """One micro-batch on one stage: its work, and what it waits for."""
    return work_seconds(stage, rates) | {"stage transfers": stage_transfer_seconds(stage, rates)}


def work_seconds(stage: Resolved, rates: Rates) -> dict[str, float]:
    """One micro-batch on one stage without what it receives from its neighbours."""
    device = with_launches(device_seconds(stage, rates), stage, rates)
    again = stage.shape.layers * (1 + recomputed_fraction(stage) / 2)
    return device | {
        "tensor parallel": tensor_parallel_seconds_of(stage, rates, again),
        "context parallel": context_parallel_seconds(stage, rates, device["attention"]),
        "expert parallel": expert_parallel_seconds(stage, rates),
    }
