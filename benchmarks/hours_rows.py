"""Reads published GPU-hours of whole runs from a CSV, and validates each row."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from benchmarks.published_rows import Cells, read_lines
from planner.errors import DataError

HOURS_TEXTS = ("model", "arch", "gpu", "precision", "hours_include", "confidence", "notes", "source")
HOURS_COLUMNS = (*HOURS_TEXTS, "params", "tokens", "n_gpus", "gpu_hours", "seq_len")


@dataclass(frozen=True, slots=True, kw_only=True)
class HoursRow:
    """The GPU-hours of a published run. Texts are as printed, "" when blank; numbers are None when blank."""

    model: str
    arch: str
    gpu: str
    precision: str
    hours_include: str
    confidence: str
    notes: str
    source: str
    params: float | None
    tokens: float | None
    n_gpus: int | None
    gpu_hours: float | None
    seq_len: int | None


def read_hours_rows(path: Path) -> list[HoursRow]:
    """The rows of a CSV with at least the columns in `HOURS_COLUMNS`, in file order. Raises FileError, DataError."""
    return read_lines(path, HOURS_COLUMNS, _row)


def _row(cells: Cells) -> HoursRow:
    if not cells.text["model"]:
        raise DataError(f"{cells.where}: model is blank", why="results are listed by it", remedy="name the model")
    return HoursRow(
        **{name: cells.text[name] for name in HOURS_TEXTS},
        params=cells.above_zero("params"),
        tokens=cells.above_zero("tokens"),
        gpu_hours=cells.above_zero("gpu_hours"),
        n_gpus=cells.count("n_gpus"),
        seq_len=cells.count("seq_len"),
    )
