"""Communication of data-parallel replicas: one all-reduce of the gradients per optimizer step."""

from __future__ import annotations

import math

from planner.counts.run import Resolved
from planner.formulas import throughput
from planner.formulas.recording import real
from planner.presets import Gpu
from planner.rules import roofline_of

GPUS_PER_NODE = 8  # as in the servers that the cards are sold in
# slowest of many: 1.4 % per doubling beyond one node, found over published runs
STRAGGLER_PER_DOUBLING = 0.014


def data_parallel_seconds(run: Resolved, gpu: Gpu, micro_seconds: float) -> tuple[float, float] | None:
    """Exposed all-reduce time of a step, s, and the straggler factor; None when the link is unknown.

    micro_seconds: time of one micro-batch, s, behind whose backward the all-reduce hides.
    """
    gpus, family = run.config.hardware.gpus, roofline_of(gpu.id)
    if gpus == 1:
        return 0.0, 1.0
    if gpu.link_bandwidth is None:
        return None
    link = gpu.link_bandwidth * family["link_share"]
    if gpus > GPUS_PER_NODE:
        link = min(link, GPUS_PER_NODE * family["network_bandwidth"])
    bytes_moved = run.parameters.total * run.recipe.gradients_bytes_per_parameter
    whole = real(throughput.all_reduce_seconds(bytes_moved, gpus, link))
    straggling = 1 + STRAGGLER_PER_DOUBLING * max(0.0, math.log2(gpus / GPUS_PER_NODE))
    return real(throughput.exposed_seconds(whole, micro_seconds)), straggling
