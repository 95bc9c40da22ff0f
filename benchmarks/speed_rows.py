"""Reads published training speeds from a CSV, and validates each row. Speeds are in tokens per second and GPU."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from benchmarks.published_rows import SETUP_COLUMNS, SETUP_COUNTS, Cells, Setup, read_lines, setup_values

SPEED_COLUMNS = (*SETUP_COLUMNS, "global_batch_seqs", "tokens_per_s_per_gpu", "tput_basis", "step_time_s", "date")
# the micro-batch and the accumulation of a table may be an average over ranks: then they hold a fraction
WHOLE = tuple(name for name in SETUP_COUNTS if name not in ("micro_batch", "grad_accum"))


@dataclass(frozen=True, slots=True, kw_only=True)
class SpeedRow(Setup):
    """One published measurement of speed.

    `speed`: tokens per second and GPU, as printed or from the step's time; None where the source has neither.
    `basis`: how the table got it. `fraction`: the micro-batch or the accumulation is no whole number. `date`: of the
    source, as printed.
    """

    measures: ClassVar[str] = "speed"
    speed: float | None
    basis: str
    global_batch: float | None
    fraction: bool
    date: str


def read_speed_rows(path: Path) -> list[SpeedRow]:
    """The rows of a CSV with at least the columns in `SPEED_COLUMNS`, in file order. Raises FileError, DataError."""
    return read_lines(path, SPEED_COLUMNS, _row)


def _row(cells: Cells) -> SpeedRow:
    values = setup_values(cells, WHOLE)
    speed, seconds = cells.above_zero("tokens_per_s_per_gpu"), cells.above_zero("step_time_s")
    batch = cells.above_zero("global_batch_seqs")
    basis = cells.text["tput_basis"]
    if speed is None and None not in (seconds, batch, values["seq_len"], values["n_gpus"]):
        assert seconds is not None and batch is not None
        speed, basis = batch * values["seq_len"] / seconds / values["n_gpus"], "derived_step_time"
    if values["grad_accum"] is None and values["micro_batch"] is not None and batch is not None:
        replicas = values["dp"] or values["n_gpus"]
        rounds = batch / values["micro_batch"] / replicas if replicas else 0.0
        values["grad_accum"] = int(rounds) if rounds >= 1 and rounds == int(rounds) else None
    fraction = any(cells.text[name] and values[name] is None for name in ("micro_batch", "grad_accum"))
    return SpeedRow(**values, speed=speed, basis=basis, global_batch=batch, fraction=fraction, date=cells.text["date"])
