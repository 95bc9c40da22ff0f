"""Seconds that the host needs to launch the kernels of one micro-batch."""

from __future__ import annotations

from planner.counts.run import Resolved
from planner.rules import rules
from planner.step_time.blocks import recomputed_fraction
from planner.step_time.rates import Rates


def launching_seconds(run: Resolved, rates: Rates) -> float:
    """Host seconds of forward and backward: of each block, and of each expert, which is called in turn."""
    s, moe = run.shape, run.config.model.moe
    each = rates.software["host_seconds"] * rates.runtime["host"]
    blocks = s.layers * each * (1 + recomputed_fraction(run) / 3)
    if moe is None:
        return float(blocks)
    called = (s.layers - s.dense_layers) * moe.experts
    return float(blocks + called * rules("time")["experts"]["host_seconds"])
