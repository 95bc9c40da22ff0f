"""The case of a published measurement of memory: its config, and the field of the memory account to compare with."""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.accuracy_setup import (
    Excluded,
    config_of_setup,
    gpu_of_row,
    option_of,
    refuse_other_models,
    refuse_other_tasks,
)
from benchmarks.memory_rows import Row
from planner.config.run import RunConfig

UNSHARDED = ("", "none", "ddp", "zero0")


@dataclass(frozen=True, slots=True)
class Case:
    """A row that can be scored: its config, the field of the memory account that stands for what was measured (None for
    a verdict), whether DDP's buckets hold the gradients a second time, bytes of each buffer that the program holds
    beside the model, and the mapping in words."""

    row: Row
    config: RunConfig
    field: str | None
    buckets: bool
    buffers: tuple[int, ...]
    mapping: tuple[str, ...]


def case_of(row: Row) -> Case:
    """The case of a row. Raises Excluded, with the first reason met."""
    refuse_other_tasks(row)
    if is_sharded(row):
        raise Excluded("sharded", row.sharding)
    refuse_other_models(row)
    gpu = gpu_of_row(row)
    field = _quantity(row)
    mapped = config_of_setup(row, gpu)
    notes = list(mapped.notes)
    # one replica: DDP's buckets are added by the score, so that no change of the planner counts them twice
    buckets = (row.dp or row.n_gpus or 1) > 1 and mapped.source["ddp_buckets"]
    if buckets:
        notes.append("DDP buckets: one more copy of the gradients")
    one = mapped.source["buffer_bytes_per_block"]
    buffers = (one,) * mapped.config.model.layers if one else ()
    if buffers:
        notes.append(f"a buffer of {buffers[0]:,} bytes in each block")
    return Case(row, mapped.config, field, buckets, buffers, (*mapped.options, *notes))


def is_sharded(row: Row) -> bool:
    """Whether the state or the model is cut up among GPUs, or the row does not say how several GPUs share it."""
    if any((size or 1) > 1 for size in (row.tp, row.pp, row.cp)):
        return True
    kind = row.sharding.lower().partition(" ")[0]
    return kind not in UNSHARDED or (kind == "" and (row.n_gpus or 1) > 1)


def _quantity(row: Row) -> str | None:
    """The field of the memory account that the row measured; None for a verdict, which the account gives by itself."""
    if row.outcome in ("oom", "fits"):
        return None
    if row.outcome != "peak":
        raise Excluded("not a peak", row.outcome or "blank")
    if row.low is None:
        raise Excluded("no measured size")
    return str(option_of("quantity", row.peak_mem_kind, "kind of memory not stated", row.measures)["field"])
