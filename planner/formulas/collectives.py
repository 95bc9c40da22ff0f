"""Seconds of collectives, transfers between stages of a pipeline, and the pipeline's bubble."""

from __future__ import annotations

from planner.formulas.formula import formula
from planner.formulas.ops import Num, log

_RING = "Patarasuk and Yuan 2009: a ring moves (G - 1) / G of the buffer; Thakur et al. 2005: latency by doublings"


@formula(gives="data_parallel", source="definition: GPUs over those that share a sequence")
def replicas_of_gpus(gpus: Num, gpus_per_replica: Num) -> Num:
    """Replicas of the model."""
    return gpus // gpus_per_replica


@formula(gives="seconds", source=_RING)
def ring_seconds(bytes: Num, gpus: Num, bandwidth: Num, latency: Num) -> Num:
    """A gather, a reduction to shards, or an exchange of all with all; an all-reduce is two of these."""
    return (gpus - 1) / gpus * bytes / bandwidth + latency * log(gpus) / log(2.0)


@formula(gives="seconds", source="Shoeybi et al. 2019 (arXiv 1909.08053), section 3: two all-reduces a block, each way")
def tensor_parallel_seconds(reductions: Num, seconds: Num, exposed_fraction: Num) -> Num:
    """All-reduces, or gathers and scatters in their place, of one micro-batch; seconds: of a gather."""
    return 2 * reductions * seconds * exposed_fraction


@formula(
    gives="seconds",
    source="Narayanan et al. 2021 (arXiv 2104.04473), section 2.2: (p - 1) / v; Qi et al. 2024 (arXiv 2401.10241): of "
    "forward, backward and weight gradients a third stays; DeepSeek-V3 (arXiv 2412.19437), table 2",
)
def bubble_seconds(stages: Num, chunks: Num, micro_seconds: Num, bubble_fraction: Num) -> Num:
    """Time of a step in which a stage waits for the pipeline to fill and to drain."""
    return (stages - 1) / chunks * micro_seconds * bubble_fraction


@formula(gives="seconds", source="definition: each chunk's input one way, its gradient the other")
def transfers_seconds(bytes: Num, chunks: Num, bandwidth: Num, latency: Num, exposed_fraction: Num) -> Num:
    """What a stage receives in one micro-batch."""
    return 2 * chunks * (bytes / bandwidth + latency) * exposed_fraction


@formula(gives="seconds", source="Liu et al. 2023 (arXiv 2310.01889): a block's keys and values pass all other GPUs")
def key_ring_seconds(bytes: Num, gpus: Num, bandwidth: Num, latency: Num) -> Num:
    """One pass of keys and values around the ring of a context-parallel group."""
    return (gpus - 1) * (bytes / bandwidth + latency)
