"""Seconds that the host needs to launch the kernels of one micro-batch."""

from __future__ import annotations

from planner.counts.run import Resolved
from planner.formulas.recording import real
from planner.rules import rules
from planner.step_time.blocks import recomputed_fraction
from planner.step_time.kernel_calls import element_wise_calls, kernels_of
from planner.step_time.rates import ALIGNED, Rates


def launching_seconds(run: Resolved, rates: Rates) -> float:
    """Host seconds of forward and backward: of each block, and of experts, called in turn or in one grouped kernel."""
    s, moe = run.shape, run.config.model.moe
    if rates.measured is None:
        each = rates.software["host_seconds"] * rates.runtime["host"]
        blocks = s.layers * each * (1 + recomputed_fraction(run) / 3)
    else:
        blocks = rates.measured.launching(kernels_of(run, element_wise_calls(run))) * rates.runtime["host"]
    if moe is None:
        return real(blocks)
    called = (s.layers - s.dense_layers) * (1 if _grouped(run, rates) else moe.experts)
    return real(blocks + called * rules("time")["experts"]["host_seconds"])


def _grouped(run: Resolved, rates: Rates) -> bool:
    """Whether one kernel multiplies the rows of all experts: its generation has it, in bf16, for rows of 16 bytes."""
    moe = run.config.model.moe
    assert moe is not None
    whole_rows = run.shape.hidden % ALIGNED == 0 and moe.expert_ffn % ALIGNED == 0
    narrow = run.recipe.compute_dtype in ("bf16", "fp8")
    return bool(rates.software.get("grouped_experts")) and narrow and whole_rows
