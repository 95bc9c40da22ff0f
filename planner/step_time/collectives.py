"""Communication of replicas: one all-reduce of the gradients per step, or FSDP2's gathers and reductions."""

from __future__ import annotations

import math
from dataclasses import dataclass

from planner.counts.run import Resolved
from planner.counts.shards import local_count, shards_of
from planner.counts.tensors import parameter_tensors
from planner.formulas import throughput
from planner.formulas.recording import real
from planner.rules import rules
from planner.step_time.rates import Rates

GPUS_PER_NODE = 8  # as in the servers that the cards are sold in
DOMAINS = {"gb200": 72, "gb300": 72}  # GPUs that NVLink joins, where it is more than a server


@dataclass(frozen=True, slots=True)
class Communication:
    """Exposed seconds of one step's all-reduce and of its gathers and reductions, and the factor of stragglers."""

    all_reduce: float
    sharding: float
    straggling: float


def communication_of(run: Resolved, rates: Rates, micro_seconds: float) -> Communication | str:
    """The communication of a step; the reason in words where the link between GPUs is unknown.

    micro_seconds: time of one micro-batch, s, behind whose work communication hides.
    """
    assert run.gpu is not None
    gpus, domain = run.config.hardware.gpus, DOMAINS.get(run.gpu.id, GPUS_PER_NODE)
    if gpus == 1:
        return Communication(0.0, 0.0, 1.0)
    if rates.link is None:
        return f"the data sheet of {run.gpu.id} has no bandwidth of its links"
    # a ring over nodes enters each of them once, through all of its network cards
    link = rates.link if gpus <= domain else min(rates.link, domain * rates.network)
    straggling = 1 + rules("time")["straggler"]["per_doubling"] * max(0.0, math.log2(gpus / domain))
    if run.config.parallel.fsdp:
        return Communication(0.0, _sharding_seconds(run, link, micro_seconds), straggling)
    moved = run.parameters.total * run.recipe.gradients_bytes_per_parameter
    whole = real(throughput.all_reduce_seconds(moved, gpus, link))
    return Communication(real(throughput.exposed_seconds(whole, micro_seconds)), 0.0, straggling)


def _sharding_seconds(run: Resolved, link: float, micro_seconds: float) -> float:
    """Every micro-batch gathers the weights in forward, again in backward if they were freed, and reduces gradients."""
    t, gpus = run.config.training, run.config.hardware.gpus
    whole = gpus * local_count(parameter_tensors(run.config.model), shards_of(run))
    gathers = 2 if run.config.parallel.reshard else 1
    each = gathers * run.recipe.compute_bytes + run.recipe.gradients_bytes_per_parameter
    seconds = real(throughput.gather_seconds(whole * each, gpus, link))
    table = rules("time")["sharding"]
    left = throughput.unhidden_seconds(seconds, micro_seconds, table["hidden"], table["exposed"])
    return real(throughput.micro_batches_seconds(real(left), t.accumulation))
