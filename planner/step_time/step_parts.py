"""Seconds of a step by part, for every layout: of replicas, or of GPUs that hold different parts."""

from __future__ import annotations

from planner.counts.run import Resolved
from planner.formulas import throughput
from planner.formulas.recording import real
from planner.step_time.collectives import with_communication
from planner.step_time.device import device_seconds, with_launches
from planner.step_time.pipeline import layout_seconds
from planner.step_time.rates import Rates
from planner.step_time.update import update_seconds


def parts_of_step(run: Resolved, rates: Rates) -> dict[str, float] | str:
    """Micro-batches, the update, and communication between GPUs; why they are unknown, in words."""
    if not run.config.parallel.is_data_parallel:
        return layout_seconds(run, rates)
    device = with_launches(device_seconds(run, rates), run, rates)
    micro = sum(device.values())
    times = run.config.training.accumulation
    parts = {name: real(throughput.micro_batches_seconds(part, times)) for name, part in device.items()}
    parts["optimizer"] = update_seconds(run, rates)
    return with_communication(parts, run, rates, micro)
