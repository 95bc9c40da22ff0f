"""The case of a published measurement of memory: its config, and the field of the memory account to compare with."""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.accuracy_layouts import with_layout
from benchmarks.accuracy_setup import (
    Excluded,
    Mapped,
    config_of_setup,
    gpu_of_row,
    option_of,
    refuse_other_models,
    refuse_other_tasks,
    source_facts,
)
from benchmarks.memory_rows import Row
from planner.config.layout import layout_in_words
from planner.config.run import RunConfig

UNSHARDED = ("", "none", "ddp", "zero0")


@dataclass(frozen=True, slots=True)
class Case:
    """A row that can be scored: its config, the field of the memory account that stands for what was measured (None for
    a verdict), whether DDP's buckets hold the gradients a second time, bytes of each buffer that the program holds
    beside the model, and the mapping in words. program: whose optimizer's buffers lie beside the plan's, "" for none.
    """

    row: Row
    config: RunConfig
    field: str | None
    buckets: bool
    buffers: tuple[int, ...]
    mapping: tuple[str, ...]
    program: str = ""

    @property
    def is_layout(self) -> bool:
        """Whether the config has a layout of several GPUs, so that the planner counts what they add."""
        return self.config.hardware.gpus > 1


def case_of(row: Row) -> Case:
    """The case of a row. Raises Excluded, with the first reason met."""
    refuse_other_tasks(row)
    refuse_other_models(row)
    gpu = gpu_of_row(row)
    field = _quantity(row)
    mapped = config_of_setup(row, gpu)
    notes = list(mapped.notes)
    if is_sharded(row):
        return _case_of_layout(row, mapped, field)
    # one replica: DDP's buckets are added by the score, so that no change of the planner counts them twice
    buckets = (row.dp or row.n_gpus or 1) > 1 and mapped.source["ddp_buckets"]
    if buckets:
        notes.append("DDP buckets: one more copy of the gradients")
    one = mapped.source["buffer_bytes_per_block"]
    buffers = (one,) * mapped.config.model.layers if one else ()
    if buffers:
        notes.append(f"a buffer of {buffers[0]:,} bytes in each block")
    return Case(row, mapped.config, field, buckets, buffers, (*mapped.options, *notes))


def _case_of_layout(row: Row, mapped: Mapped, field: str | None) -> Case:
    if "seq_len assumed" in row.notes:
        raise Excluded("micro-batch or sequence not stated", "the table assumed the sequence")
    cut, more = with_layout(mapped.config, row)
    notes = [note for note in mapped.notes if note not in more]
    program = mapped.source["program_buffers"]
    if program:
        more = [*more, f"buffers of {program}'s optimizer"]
    return Case(row, cut, field, False, (), (*mapped.options, *notes, layout_in_words(cut), *more), program)


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
    reason = "kind of memory not stated"
    found = str(option_of("quantity", row.peak_mem_kind, reason, row.measures)["field"])
    if not found:
        raise Excluded(reason, row.peak_mem_kind)
    return str(source_facts(row)["peak"]) or found
