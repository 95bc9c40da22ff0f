"""Reads published measurements from a CSV: the columns that describe the run, and those of what was measured.

A blank cell is "the source does not say" and becomes None (texts: ""); nothing is filled in here.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from planner.errors import DataError, FileError, nearest

N = TypeVar("N", int, float)
R = TypeVar("R")
SETUP_TEXTS = (
    *("id", "source_group", "quality", "task", "model", "arch", "mlp_type", "gpu", "precision", "sharding"),
    *("act_ckpt", "attn_kernel", "compile", "flags", "notes", "source"),
)
SETUP_COUNTS = (
    *("params_total", "n_layers", "hidden", "n_heads", "n_kv_heads", "head_dim", "ffn", "vocab", "seq_len"),
    *("n_gpus", "dp", "tp", "pp", "vp", "cp", "micro_batch", "grad_accum"),
)
SETUP_COLUMNS = (*SETUP_TEXTS, *SETUP_COUNTS, "tied")


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """The run that was measured. Texts are as printed, "" when blank; counts are None when blank.

    `tied`: the output head is the embedding table. `measures`: what the row holds, memory or speed.
    """

    measures: ClassVar[str] = "memory"
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
    vp: int | None
    cp: int | None
    micro_batch: int | None
    grad_accum: int | None
    tied: bool | None


@dataclass(frozen=True, slots=True)
class Cells:
    """The texts of a line by column, and where it stands."""

    text: Mapping[str, str]
    where: str

    def count(self, name: str) -> int | None:
        """A whole number of at least 1, None when blank. Raises DataError."""
        return self._number(name, _count)

    def above_zero(self, name: str) -> float | None:
        """A finite number above 0, None when blank. Raises DataError."""
        return self._number(name, _above_zero)

    def flag(self, name: str) -> bool | None:
        """0 or 1, None when blank. Raises DataError."""
        found = self._number(name, _flag)
        return None if found is None else bool(found)

    def _number(self, name: str, read: Callable[[str], N]) -> N | None:
        if not self.text[name]:
            return None
        try:
            return read(self.text[name])
        except ValueError as error:
            raise DataError(
                f"{self.where}: {name} is {self.text[name]!r}",
                why=str(error),
                remedy="correct it, or leave it blank if unknown",
            ) from None


def setup_values(cells: Cells, whole: Sequence[str] = SETUP_COUNTS) -> dict[str, Any]:
    """The fields of a `Setup` from a line. whole: counts whose cells must hold a whole number; others that hold none
    become None. Raises DataError."""
    for name in ("id", "source_group"):
        if not cells.text[name]:
            raise DataError(
                f"{cells.where}: {name} is blank",
                why="results are listed by it",
                remedy="give every row an id and a group",
            )
    values: dict[str, Any] = {name: cells.text[name] for name in SETUP_TEXTS}
    for name in SETUP_COUNTS:
        size = None if name in whole else cells.above_zero(name)
        fraction = size is not None and size != int(size)
        values[name] = None if fraction else cells.count(name)
    return values | {"tied": cells.flag("tied")}


def read_lines(path: Path, columns: Sequence[str], read: Callable[[Cells], R]) -> list[R]:
    """What `read` makes of each line of a CSV with at least these columns, in file order.

    Raises FileError when the file cannot be read, DataError for a missing column or a cell that is not what its column
    holds; the message names the line.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            _check_columns(path, reader.fieldnames, columns)
            return [read(_cells(line, f"{path}, line {reader.line_num}")) for line in reader]
    except OSError as error:
        raise FileError(
            f"cannot read {path}", why=error.strerror or str(error), remedy="give an existing CSV"
        ) from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} is not a CSV in UTF-8", why=str(error), remedy="save it as comma-separated") from None


def _cells(line: Mapping[str | None, str | list[str] | None], where: str) -> Cells:
    if None in line or None in line.values():
        raise DataError(
            f"{where}: not as many cells as columns",
            why="a cell with a comma stands in quotes",
            remedy="quote it, or fill the line up with commas",
        )
    return Cells({str(k): str(v).strip() for k, v in line.items()}, where)


def _check_columns(path: Path, found: object, columns: Sequence[str]) -> None:
    names = [str(name) for name in found] if isinstance(found, (list, tuple)) else []
    if not names:
        raise DataError(f"{path} is empty", why="its first line must name the columns", remedy=_remedy(columns))
    missing = [name for name in columns if name not in names]
    if missing:
        near = nearest(missing[0], names)
        raise DataError(
            f"{path} has no column {', '.join(missing)}",
            why="a row cannot be turned into a configuration without it",
            remedy=f"rename {near[0]!r} to {missing[0]!r}, or add the column" if near else _remedy(missing),
        )


def _remedy(names: Sequence[str]) -> str:
    return f"the first line needs {', '.join(names)}; a value that is not known stays blank"


def _count(cell: str) -> int:
    value = float(cell)
    if not math.isfinite(value) or value < 1 or value != int(value):
        raise ValueError("it holds a whole number of at least 1")
    return int(value)


def _above_zero(cell: str) -> float:
    value = float(cell)
    if not math.isfinite(value) or value <= 0:
        raise ValueError("it holds a number above 0")
    return value


def _flag(cell: str) -> int:
    if cell not in ("0", "1"):
        raise ValueError("it holds 0 or 1")
    return int(cell)
