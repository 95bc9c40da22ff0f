"""The layout of a published run that cuts its model up among GPUs, or the reason why it cannot be expressed."""

from __future__ import annotations

from typing import Any

from benchmarks.accuracy_setup import Excluded, software_of, source_facts
from benchmarks.memory_rows import Row
from benchmarks.speed_rows import SpeedRow
from planner.config.layout import batch_problem, refuse_layout
from planner.config.parallel import ParallelConfig
from planner.config.run import WITH_WHOLE_MATRICES, RunConfig

PADDING = 128  # Megatron's multiple of the vocabulary, for each tensor-parallel GPU
# a word of the table's sharding → keys of [parallel]
SHARDINGS: dict[str, dict[str, Any]] = {
    "": {},
    "none": {},
    "ddp": {},
    "zero0": {},
    "zero1": {"zero": 1},
    "zero2": {"zero": 2},
    "zero3": {"zero": 3},
    "fsdp": {"fsdp": True},
    "fsdp2": {"fsdp": True},
    "fsdp+zero1": {"fsdp": True},  # InternEvo's name for weights that are cut as the optimizer's state is
}


def with_layout(config: RunConfig, row: SpeedRow | Row) -> tuple[RunConfig, list[str]]:
    """The config of one replica with the row's layout and all its GPUs, and what was assumed. Raises Excluded."""
    tp, pp, cp, chunks = row.tp or 1, row.pp or 1, row.cp or 1, row.vp or 1
    each = tp * pp * cp
    if each == 1 and row.sharding.lower() in ("", "unstated"):
        raise Excluded("layout of several GPUs not stated", row.sharding)
    gpus = row.n_gpus or (row.dp or 0) * each
    if not gpus or gpus % each:
        raise Excluded("layout of several GPUs not stated", f"{gpus} GPUs in groups of {each}")
    notes, keys = [], _sharding(row.sharding, gpus // (tp * pp))
    stated = bool(source_facts(row)["sequence_parallel"])
    sp = tp > 1 and (stated or software_of(row) == "transformer-engine-2024")
    if sp:
        notes.append("sequence parallel" if stated else "sequence parallel assumed")
    parallel = ParallelConfig(
        tp=tp,
        sp=sp,
        pp=pp,
        cp=cp,
        interleave=chunks,
        pp_schedule="interleaved" if chunks > 1 else "1f1b",
        **keys,
    )
    model = config.model
    if model.vocab % tp:
        model = model.model_copy(update={"vocab": -(-model.vocab // (PADDING * tp)) * PADDING * tp})
        notes.append("vocabulary padded")
    rounds = _micro_batches(row, gpus // each)
    if rounds is None:
        rounds = 1
        notes.append("accumulation 1 assumed")
    training = config.training.model_copy(update={"accumulation": rounds})
    hardware = config.hardware.model_copy(update={"gpus": gpus})
    whole = {"model": model, "training": training, "hardware": hardware, "parallel": parallel}
    found = config.model_copy(update=whole)
    try:
        refuse_layout(found, WITH_WHOLE_MATRICES)
    except ValueError as error:
        raise Excluded("layout refused", str(error)) from None
    wrong = batch_problem(found)
    if wrong is not None:
        raise Excluded("layout refused", wrong[0])
    return found, notes


def _sharding(text: str, replicas: int) -> dict[str, Any]:
    word = text.lower().partition(" ")[0].removesuffix("/zero1")
    if word.startswith("fsdp") and word[4:].isdigit() and word != "fsdp2":
        size = int(word[4:])
        return {"fsdp": True, "hsdp": size} if size < replicas else {"fsdp": True}
    if word not in SHARDINGS or ("group=" in text and "all" not in text):
        raise Excluded("sharded in another way", text)
    return SHARDINGS[word] if replicas > 1 else {}


def _micro_batches(row: SpeedRow | Row, replicas: int) -> int | None:
    """Micro-batches of a step; None where a row of memory without a pipeline does not say. Raises Excluded."""
    if row.global_batch is None:
        if row.grad_accum is None and (row.measures == "speed" or (row.pp or 1) > 1):
            raise Excluded("micro-batches of a pipeline not stated")
        return row.grad_accum
    assert row.micro_batch is not None
    rounds = row.global_batch / row.micro_batch / replicas
    if rounds < 1 or rounds != int(rounds):
        raise Excluded("batch contradicts the layout", f"{rounds:g} micro-batches")
    return int(rounds)
