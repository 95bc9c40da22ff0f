"""Communication of replicas: one all-reduce of the gradients per step, or FSDP2's gathers and reductions."""

from __future__ import annotations

import math
from dataclasses import dataclass

from planner.counts.nodes import domain_of, network_cards_of
from planner.counts.ranks import held_tensors
from planner.counts.run import Resolved
from planner.counts.shards import sharing_gpus, weights_cut
from planner.formulas import collectives, throughput
from planner.formulas.ops import Num
from planner.formulas.recording import real
from planner.rules import rules
from planner.step_time.rates import Rates


@dataclass(frozen=True, slots=True)
class Communication:
    """What the replicas of a step exchange, by how it hides. None of it depends on the micro-batch.

    reduced: seconds of an all-reduce at the end of the step, behind the last micro-batch. added: seconds that nothing
    hides. gathered: seconds of FSDP2's gathers and reductions of each micro-batch, or ZeRO-2's, behind its work.
    straggling: the factor of waiting for the slowest GPU.
    """

    reduced: float
    added: float
    gathered: float
    straggling: float


def communication_of(run: Resolved, rates: Rates) -> Communication | str:
    """The communication of a step among replicas; the reason in words where the link between GPUs is unknown."""
    gpus, domain, p = run.config.hardware.gpus, domain_of(run.config), run.config.parallel
    if gpus == 1:
        return Communication(0.0, 0.0, 0.0, 1.0)
    assert run.gpu is not None
    if rates.link is None:
        return f"the data sheet of {run.gpu.id} has no bandwidth of its links"
    straggling = 1 + rules("time")["straggler"]["per_doubling"] * max(0.0, math.log2(gpus / domain))
    sharing = sharing_gpus(run)
    if p.shards_weights:
        return Communication(_replicated_seconds(run, rates), 0.0, _sharding_seconds(run, rates), straggling)
    link = group_bandwidth(run, rates, sharing, p.tp)
    moved = run.parameters.total * run.recipe.gradients_bytes_per_parameter
    if p.zero == 2:  # gradients of every micro-batch are reduced to shards and freed
        gathered = real(throughput.gather_seconds(moved, sharing, link))
        weights = run.parameters.total * run.recipe.weights_bytes_per_parameter
        return Communication(0.0, real(throughput.gather_seconds(weights, sharing, link)), gathered, straggling)
    if p.zero == 1 and run.recipe.weights_bytes_per_parameter != run.recipe.gradients_bytes_per_parameter:
        # gradients are reduced to shards, the weights that follow are gathered
        moved = run.parameters.total * (
            run.recipe.gradients_bytes_per_parameter + run.recipe.weights_bytes_per_parameter
        )
        whole = real(throughput.gather_seconds(moved, sharing, link))
    else:
        whole = real(throughput.all_reduce_seconds(moved, sharing, link))
    copying = _copying_seconds(run, rates, moved)
    if rates.software.get("reduces_after_backward"):
        return Communication(0.0, whole + copying, 0.0, straggling)
    return Communication(whole, copying, 0.0, straggling)


def all_reduce_seconds_left(shared: Communication, micro_seconds: Num) -> Num:
    """Exposed seconds of a step's all-reduce. micro_seconds: of one micro-batch, behind whose work it hides."""
    if not shared.reduced:
        return shared.added
    exposed = real(throughput.exposed_seconds(shared.reduced, micro_seconds))
    return exposed + shared.added if shared.added else exposed


def sharding_seconds_left(shared: Communication, micro_seconds: Num, accumulation: Num) -> Num:
    """Exposed seconds of a step's gathers and reductions, behind the work of each micro-batch."""
    if not shared.gathered:
        return 0.0
    table = rules("time")["sharding"]
    left = real(throughput.unhidden_seconds(shared.gathered, micro_seconds, table["hidden"], table["exposed"]))
    return real(throughput.micro_batches_seconds(left, accumulation))


def _copying_seconds(run: Resolved, rates: Rates, moved: float) -> float:
    """DDP copies gradients into its buckets and the sums out of them, unless the buckets hold the gradients."""
    p = run.config.parallel
    return 0.0 if p.ddp_bucket_view or p.zero else real(throughput.traffic_seconds(4 * moved, rates.bandwidth))


def with_communication(
    parts: dict[str, float], run: Resolved, rates: Rates, micro_seconds: float
) -> dict[str, float] | str:
    """The parts of a step with what replicas exchange and what waiting for the slowest adds; or why it is unknown."""
    shared = communication_of(run, rates)
    if isinstance(shared, str):
        return shared
    whole = parts | {
        "all-reduce": all_reduce_seconds_left(shared, micro_seconds),
        "sharding": sharding_seconds_left(shared, micro_seconds, run.config.training.accumulation),
    }
    return whole | {"stragglers": real(throughput.straggler_seconds(sum(whole.values()), shared.straggling))}


def group_bandwidth(run: Resolved, rates: Rates, gpus: int, stride: int) -> float:
    """Byte/s of a ring among `gpus` GPUs that stand `stride` apart: the links of a server, or its network cards.

    A ring over servers enters each of them once for every of its GPUs there, through the network cards that it has.
    """
    assert rates.link is not None
    domain = domain_of(run.config)
    if gpus * stride <= domain:
        return rates.link
    entries = min(max(1, domain // stride), network_cards_of(run.config))
    return min(rates.link, entries * rates.network)


def _sharding_seconds(run: Resolved, rates: Rates) -> float:
    """Every micro-batch gathers the weights in forward, again in backward if they were freed, and reduces gradients."""
    cut = weights_cut(run)
    whole = sum(each.times * cut.shards_of(each) * cut.part(each).count for each in held_tensors(run))
    gathers = 2 if run.config.parallel.reshard else 1
    each = gathers * run.recipe.compute_bytes + run.recipe.gradients_bytes_per_parameter
    link = group_bandwidth(run, rates, cut.shards, run.config.parallel.tp)
    return real(throughput.gather_seconds(whole * each, cut.shards, link))


def _replicated_seconds(run: Resolved, rates: Rates) -> float:
    """Groups of GPUs that each hold all shards add up the gradients of a step, shard by shard."""
    cut, tp = weights_cut(run), run.config.parallel.tp
    groups = sharing_gpus(run) // cut.shards
    if groups == 1:
        return 0.0
    link = group_bandwidth(run, rates, groups, tp * cut.shards)
    moved = cut.count(held_tensors(run)) * run.recipe.gradients_bytes_per_parameter
    return real(throughput.all_reduce_seconds(moved, groups, link))


def tensor_parallel_seconds_of(run: Resolved, rates: Rates, blocks: float) -> float:
    """Exposed all-reduces of one micro-batch on one stage; blocks: those of the stage, recomputed ones half again."""
    p, t, table = run.config.parallel, run.config.training, rules("time")["layouts"]
    if p.tp == 1:
        return 0.0
    rank = run.rank
    ends = (int(rank.embeds) + int(rank.has_head)) / 2 if rank else 1.0
    stream = t.micro_batch * t.seq * run.shape.hidden * run.recipe.compute_bytes
    one = real(collectives.ring_seconds(stream, p.tp, group_bandwidth(run, rates, p.tp, 1), table["latency"]))
    exposed = table["tensor_exposed"].get(run.config.hardware.software, table["tensor_exposed"]["all"])
    return real(collectives.tensor_parallel_seconds(4 * blocks + 2 * ends, one, exposed))


def context_parallel_seconds(run: Resolved, rates: Rates, attention: float) -> float:
    """Exposed exchange of keys and values of one micro-batch, and of their gradients; attention: its seconds."""
    p, t, table = run.config.parallel, run.config.training, rules("time")["layouts"]
    if p.cp == 1:
        return 0.0
    bytes_each = 2 * t.micro_batch * t.seq * run.shape.key_width * run.recipe.compute_bytes
    bandwidth = group_bandwidth(run, rates, p.cp, p.tp)
    one = real(collectives.key_ring_seconds(bytes_each, p.cp, bandwidth, table["latency"]))
    whole = 3 * run.shape.layers * one  # once forward; keys, values and their gradients in backward
    return real(throughput.unhidden_seconds(whole, attention, table["context_hidden"], table["context_exposed"]))


def expert_parallel_seconds(run: Resolved, rates: Rates) -> float:
    """Exposed exchange of tokens with the experts of other GPUs in one micro-batch: there and back, both ways."""
    p, t, moe, table = run.config.parallel, run.config.training, run.config.model.moe, rules("time")
    if p.ep == 1 or moe is None:
        return 0.0
    tokens = t.micro_batch * t.seq * moe.top_k / p.tp * table["experts"]["imbalance"]
    bandwidth = group_bandwidth(run, rates, p.ep, p.tp)
    moved = tokens * run.shape.hidden * run.recipe.compute_bytes
    one = real(collectives.ring_seconds(moved, p.ep, bandwidth, table["layouts"]["latency"]))
    overlapped = p.pp_schedule == "dualpipe"
    exposed = table["layouts"]["dualpipe_exposed" if overlapped else "expert_exposed"]
    return real(4 * (run.shape.layers - run.shape.dense_layers) * one * exposed)


def stage_transfer_seconds(run: Resolved, rates: Rates) -> float:
    """Exposed transfers between stages in one micro-batch; each tensor-parallel GPU sends its part of the stream."""
    p, t, table = run.config.parallel, run.config.training, rules("time")["layouts"]
    if p.pp == 1:
        return 0.0
    stream = t.micro_batch * t.seq * run.shape.hidden * run.recipe.compute_bytes / p.tp
    apart = run.config.hardware.gpus // p.pp
    bandwidth = group_bandwidth(run, rates, 2, apart)
    exposed = table["interleaved_exposed" if p.interleave > 1 else "transfer_exposed"]
    return real(collectives.transfers_seconds(stream, p.interleave, bandwidth, table["latency"], exposed))
