"""Reads published measurements of training memory from a CSV, and validates each row. Sizes are in bytes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from benchmarks.published_rows import SETUP_COLUMNS, Cells, Setup, read_lines, setup_values
from planner.errors import DataError

GIB = 2**30
COLUMNS = (*SETUP_COLUMNS, "outcome", "peak_mem_kind", "peak_gib_per_gpu_min", "peak_gib_per_gpu_max")


@dataclass(frozen=True, slots=True, kw_only=True)
class Row(Setup):
    """One published measurement of memory.

    `low`, `high`: the measured peak in byte per GPU; they differ where the source's unit is ambiguous. None without a
    measured size (an out-of-memory or a largest-batch row). `global_batch`: sequences of a step; a file may lack it.
    """

    outcome: str
    peak_mem_kind: str
    low: float | None
    high: float | None
    global_batch: float | None = None


def read_rows(path: Path) -> list[Row]:
    """The rows of a CSV with at least the columns in `COLUMNS`, in file order. Raises FileError, DataError."""
    return read_lines(path, COLUMNS, _row)


def _row(cells: Cells) -> Row:
    text = cells.text
    low, high = cells.above_zero("peak_gib_per_gpu_min"), cells.above_zero("peak_gib_per_gpu_max")
    if (low is None) != (high is None) or (low is not None and high is not None and low > high):
        raise DataError(
            f"{cells.where}: peak_gib_per_gpu_min {text['peak_gib_per_gpu_min']!r} and "
            f"max {text['peak_gib_per_gpu_max']!r} are no range",
            why="they hold the two readings of an ambiguous unit, or the same number twice",
            remedy="give both, the smaller first, or neither",
        )
    return Row(
        **setup_values(cells),
        outcome=text["outcome"],
        peak_mem_kind=text["peak_mem_kind"],
        low=None if low is None else low * GIB,
        high=None if high is None else high * GIB,
        global_batch=cells.above_zero("global_batch_seqs") if "global_batch_seqs" in text else None,
    )
