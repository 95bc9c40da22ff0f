"""Reads published measurements of training memory from a CSV, and validates each row.

A blank cell is "the source does not say" and becomes None; nothing is filled in here. Sizes are in bytes.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from planner.errors import DataError, FileError, nearest

N = TypeVar("N", int, float)
GIB = 2**30
TEXTS = (
    *("id", "source_group", "quality", "task", "model", "arch", "mlp_type", "gpu", "precision", "sharding"),
    *("act_ckpt", "attn_kernel", "compile", "outcome", "peak_mem_kind", "flags", "notes", "source"),
)
COUNTS = (
    *("params_total", "n_layers", "hidden", "n_heads", "n_kv_heads", "head_dim", "ffn", "vocab", "seq_len"),
    *("n_gpus", "dp", "tp", "pp", "cp", "micro_batch", "grad_accum"),
)
COLUMNS = (*TEXTS, *COUNTS, "tied", "peak_gib_per_gpu_min", "peak_gib_per_gpu_max")


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One published measurement. Texts are as printed, "" when blank; counts are None when blank.

    `low`, `high`: the measured peak in byte per GPU; they differ where the source's unit is ambiguous. None without a
    measured size (an out-of-memory or a largest-batch row). `tied`: the output head is the embedding table.
    """

    id: str
    source_group: str
    quality: str
    task: str
    model: str
    arch: str
    mlp_type: str
    gpu: str
    precision: str
    sharding: str
    act_ckpt: str
    attn_kernel: str
    compile: str
    outcome: str
    peak_mem_kind: str
    flags: str
    notes: str
    source: str
    params_total: int | None
    n_layers: int | None
    hidden: int | None
    n_heads: int | None
    n_kv_heads: int | None
    head_dim: int | None
    ffn: int | None
    vocab: int | None
    seq_len: int | None
    n_gpus: int | None
    dp: int | None
    tp: int | None
    pp: int | None
    cp: int | None
    micro_batch: int | None
    grad_accum: int | None
    tied: bool | None
    low: float | None
    high: float | None


def read_rows(path: Path) -> list[Row]:
    """The rows of a CSV with at least the columns in `COLUMNS`, in file order.

    Raises FileError when the file cannot be read, DataError for a missing column or a cell that is not what its column
    holds; the message names the line.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            _check_columns(path, reader.fieldnames)
            return [_row(cells, f"{path}, line {reader.line_num}") for cells in reader]
    except OSError as error:
        raise FileError(
            f"cannot read {path}", why=error.strerror or str(error), remedy="give an existing CSV"
        ) from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} is not a CSV in UTF-8", why=str(error), remedy="save it as comma-separated") from None


def _check_columns(path: Path, found: object) -> None:
    names = [str(name) for name in found] if isinstance(found, (list, tuple)) else []
    if not names:
        raise DataError(f"{path} is empty", why="its first line must name the columns", remedy=_remedy(COLUMNS))
    missing = [name for name in COLUMNS if name not in names]
    if missing:
        near = nearest(missing[0], names)
        raise DataError(
            f"{path} has no column {', '.join(missing)}",
            why="a row cannot be turned into a configuration without it",
            remedy=f"rename {near[0]!r} to {missing[0]!r}, or add the column" if near else _remedy(missing),
        )


def _remedy(names: object) -> str:
    assert isinstance(names, (list, tuple))
    return f"the first line needs {', '.join(names)}; a value that is not known stays blank"


def _row(cells: dict[str | None, str | list[str] | None], where: str) -> Row:
    if None in cells or None in cells.values():
        raise DataError(
            f"{where}: not as many cells as columns",
            why="a cell with a comma stands in quotes",
            remedy="quote it, or fill the line up with commas",
        )
    text = {str(k): str(v).strip() for k, v in cells.items()}
    low, high = (_number(text, name, where, _size) for name in ("peak_gib_per_gpu_min", "peak_gib_per_gpu_max"))
    if (low is None) != (high is None) or (low is not None and high is not None and low > high):
        raise DataError(
            f"{where}: peak_gib_per_gpu_min {text['peak_gib_per_gpu_min']!r} and "
            f"max {text['peak_gib_per_gpu_max']!r} are no range",
            why="they hold the two readings of an ambiguous unit, or the same number twice",
            remedy="give both, the smaller first, or neither",
        )
    for name in ("id", "source_group"):
        if not text[name]:
            raise DataError(
                f"{where}: {name} is blank", why="results are listed by it", remedy="give every row an id and a group"
            )
    tied = _number(text, "tied", where, _flag)
    values: dict[str, Any] = {name: text[name] for name in TEXTS}
    values |= {name: _number(text, name, where, _count) for name in COUNTS}
    values |= {"tied": None if tied is None else bool(tied)}
    return Row(**values, low=None if low is None else low * GIB, high=None if high is None else high * GIB)


def _number(text: dict[str, str], name: str, where: str, read: Callable[[str], N]) -> N | None:
    """The number in a cell, None when blank. Raises DataError."""
    if not text[name]:
        return None
    try:
        return read(text[name])
    except ValueError as error:
        raise DataError(
            f"{where}: {name} is {text[name]!r}", why=str(error), remedy="correct it, or leave it blank if unknown"
        ) from None


def _count(cell: str) -> int:
    value = float(cell)
    if not math.isfinite(value) or value < 1 or value != int(value):
        raise ValueError("it holds a whole number of at least 1")
    return int(value)


def _size(cell: str) -> float:
    value = float(cell)
    if not math.isfinite(value) or value <= 0:
        raise ValueError("it holds a size in GiB above 0")
    return value


def _flag(cell: str) -> int:
    if cell not in ("0", "1"):
        raise ValueError("it holds 0 or 1")
    return int(cell)
