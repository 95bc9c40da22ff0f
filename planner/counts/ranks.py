"""The kinds of GPUs of a layout: which blocks and tables each holds, and the run as one of them sees it.

Tensor parallelism cuts heads, inner widths and the vocabulary (Shoeybi et al. 2019, arXiv 1909.08053); where there are
more GPUs than key-value heads, each holds one. Stages hold alike many blocks; where the blocks do not divide, the
middle stages take one more than the ends, which hold the embedding and the head (Llama 3 405B, arXiv 2407.21783).
Experts are cut by tensor parallelism too, and shared by the GPUs of an expert-parallel group.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from planner.config.model import ModelConfig, MoeConfig
from planner.config.run import RunConfig
from planner.counts.run import Resolved
from planner.counts.shape import has_experts, shape_of
from planner.counts.tensors import ParameterTensor, named_tensors, parameter_tensors

OUTSIDE_TABLES = ("embedding", "position")


@dataclass(frozen=True, slots=True)
class Rank:
    """One kind of GPU. layers: its blocks, `first_layer` the number of the first. chunk_layers: the blocks of the
    largest chunk that runs at once. in_flight: chunks whose activations it keeps, the running one included."""

    name: str
    first_layer: int
    layers: int
    chunk_layers: int
    embeds: bool
    has_head: bool
    in_flight: int


WHOLE_MODEL = Rank("every GPU", 0, 0, 0, True, True, 1)  # of a run without a layout; its blocks are the model's


def chunks_of_layers(layers: int, chunks: int) -> tuple[int, ...]:
    """Blocks of each chunk in the order of the model: alike, what is left over goes to the middle."""
    each, more = divmod(layers, chunks)
    before = (chunks - more) // 2 + (chunks - more) % 2
    return tuple(each + (before <= i < before + more) for i in range(chunks))


def in_flight(schedule: str, stages: int, stage: int, interleave: int, micro_batches: int) -> int:
    """Chunks whose activations a stage keeps at most.

    1f1b and interleaved: Narayanan et al. 2021 (arXiv 2104.04473) and the warm-up of Megatron-Core's schedules.py.
    zero-bubble: Qi et al. 2024 (arXiv 2401.10241): the memory of 1f1b's first stage on each. dualpipe: DeepSeek-V3
    (arXiv 2412.19437), table 2: one micro-batch more than stages.
    """
    most = micro_batches * interleave
    if schedule == "interleaved":
        return min(most, (stages - stage - 1) * 2 + (interleave - 1) * stages + 1)
    if schedule == "zero-bubble":
        return min(most, stages * interleave)
    return min(most, stages + 1 if schedule == "dualpipe" else stages - stage)


def ranks_of(config: RunConfig) -> tuple[Rank, ...]:
    """The kinds of GPUs: stages that differ in blocks, tables or activations kept; of alike middle stages the first."""
    p, layers = config.parallel, config.model.layers
    if p.pp == 1:
        return (Rank("every GPU", 0, layers, layers, True, True, 1),)
    return tuple(rank for _, rank in numbered_stages(config))


def numbered_stages(config: RunConfig) -> tuple[tuple[int, Rank], ...]:
    """The kinds of GPUs of a pipeline, each with the number of the first stage that is of its kind and needs most."""
    found: dict[tuple[int, bool, bool], tuple[int, Rank]] = {}
    for stage in range(config.parallel.pp):
        rank = _stage(config, stage)
        kind = rank.layers, rank.embeds, rank.has_head
        if kind not in found or rank.in_flight > found[kind][1].in_flight:
            found[kind] = stage, rank
    return tuple(found.values())


@dataclass(frozen=True, slots=True)
class Chunk:
    """Consecutive blocks that run at once, and whether the embedding and the head are with them."""

    layers: int
    embeds: bool
    has_head: bool


def chunks_of_stage(config: RunConfig, stage: int) -> tuple[Chunk, ...]:
    """What a stage holds, in the order of the model."""
    p = config.parallel
    layers = chunks_of_layers(config.model.layers, p.pp * p.interleave)
    numbers = range(stage, len(layers), p.pp)
    return tuple(Chunk(layers[number], number == 0, number == len(layers) - 1) for number in numbers)


def _stage(config: RunConfig, stage: int) -> Rank:
    p = config.parallel
    chunks = chunks_of_layers(config.model.layers, p.pp * p.interleave)
    own = [stage + p.pp * turn for turn in range(p.interleave)]
    if p.pp_schedule == "dualpipe":  # each GPU holds a stage of either direction
        own.append(p.pp - 1 - stage)
    embeds, has_head = 0 in own, len(chunks) - 1 in own
    kind = "first" if stage == 0 else "last" if stage == p.pp - 1 else "middle"
    return Rank(
        f"{kind} stage",
        sum(chunks[: own[0]]),
        sum(chunks[chunk] for chunk in own),
        max(1, *(chunks[chunk] for chunk in own)),
        embeds,
        has_head,
        in_flight(p.pp_schedule, p.pp, stage, p.interleave, config.training.accumulation),
    )


def run_of_rank(run: Resolved, rank: Rank) -> Resolved:
    """The run as one kind of GPU sees it: its blocks, its part of each width, its tokens of each sequence."""
    config = run.config
    model = _local_model(config, rank)
    training = config.training.model_copy(update={"seq": config.training.seq // config.parallel.cp})
    local = config.model_copy(update={"model": model, "training": training})
    found = replace(run, config=local, shape=shape_of(model), rank=rank)
    tensors = held_tensors(found)
    total = sum(t.times * t.count for t in tensors)
    matrices = [t for t in tensors if len(t.shape) > 1 and t.name.partition(".")[0] not in OUTSIDE_TABLES]
    linear = sum(t.times * t.count for t in matrices)
    if model.tied_embeddings and rank.has_head:
        linear += model.vocab * model.hidden
    counts = replace(
        run.parameters,
        total=total,
        linear=linear,
        tensors=sum(t.times for t in tensors),
        largest=max(t.count for t in tensors),
    )
    return replace(found, parameters=counts)


def _local_model(config: RunConfig, rank: Rank) -> ModelConfig:
    model, tp = config.model, config.parallel.tp
    widths = {
        "layers": rank.layers,
        "heads": model.heads // tp,
        "kv_heads": model.heads // tp if model.mla else max(1, model.kv_heads // tp),
        "ffn": model.ffn // tp,
        "vocab": model.vocab // tp,
        "moe": None if model.moe is None else _local_experts(model, model.moe, config, rank),
    }
    return model.model_copy(update=widths)


def _local_experts(model: ModelConfig, moe: MoeConfig, config: RunConfig, rank: Rank) -> MoeConfig | None:
    tp, last = config.parallel.tp, rank.first_layer + rank.layers
    if not any(has_experts(model, block) for block in range(rank.first_layer, min(last, model.layers))):
        return None
    widths = {
        "experts": moe.experts // config.parallel.ep,
        "expert_ffn": moe.expert_ffn // tp,
        "shared_ffn": moe.shared_ffn // tp,
        "first_dense_layers": max(0, min(moe.first_dense_layers - rank.first_layer, rank.layers)),
    }
    return moe.model_copy(update=widths)


def held_tensors(run: Resolved) -> tuple[ParameterTensor, ...]:
    """The parameter tensors that a GPU works with, those that blocks share once with their number, before sharding."""
    tensors = parameter_tensors(run.config.model)
    rank = run.rank
    if rank is None:
        return tensors
    missing = end_norms(run) - run.shape.end_norms
    found = []
    for tensor in tensors:
        if tensor.name.startswith("norm."):  # those of the blocks and those outside of them
            tensor = replace(tensor, times=tensor.times + missing)
        elif not _holds(rank, tensor.name, run.shape.tied):
            continue
        if tensor.times:
            found.append(_with_whole_router(run, tensor))
    return tuple(found)


def end_norms(run: Resolved) -> int:
    """Norms of a GPU outside the blocks: after the embedding, and before the head."""
    rank = run.rank
    if rank is None:
        return run.shape.end_norms
    return int(rank.has_head) + int(rank.embeds and run.config.model.embedding_norm)


def held_named_tensors(run: Resolved) -> list[ParameterTensor]:
    """Every tensor that a GPU works with by itself, under its name; blocks are numbered from the GPU's first."""
    rank, tensors = run.rank, named_tensors(run.config.model)
    if rank is None:
        return list(tensors)
    return [_with_whole_router(run, t) for t in tensors if _holds(rank, t.name, run.shape.tied)]


def _holds(rank: Rank, name: str, tied: bool) -> bool:
    outside = name.partition(".")[0]
    if outside == "embedding":
        return rank.embeds or (tied and rank.has_head)
    if outside in ("position", "embedding_norm"):
        return rank.embeds
    return rank.has_head if outside in ("head", "norm") else True


def _with_whole_router(run: Resolved, tensor: ParameterTensor) -> ParameterTensor:
    """A router scores all experts, wherever they are."""
    if not tensor.name.endswith(("mlp.router.weight", "mlp.router.bias")):
        return tensor
    return replace(tensor, shape=(tensor.shape[0] * run.config.parallel.ep, *tensor.shape[1:]))
