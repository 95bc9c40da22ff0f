"""Predicted memory, speed and GPU-hours against published measurements.

    python -m benchmarks.accuracy [--memory FILE | --throughput FILE | --gpu-hours FILE] [--rows] [--json] [--out FILE]

FILE is a CSV. Memory has the columns of benchmarks/data/memory_rows.csv, which is scored when no file is given. The
error of a row is 0 inside the two readings of an ambiguous unit, else |ln(predicted / nearer end)|. Out-of-memory rows
and largest-batch rows are verdicts, counted apart. Speeds have the columns of benchmarks/speed_rows.py, hours those of
benchmarks/hours_rows.py; their error is |ln(predicted / measured)|, `coverage` is the fraction of rows inside the
predicted interval, `median_width` the median of ln(high / low) / 2. docs/why/accuracy.md says how each source is read,
and why some rows are left out.
Exit codes: 0 scored, 2 the file cannot be used.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.accuracy_hours import hours_row, hours_summary, score_hours
from benchmarks.accuracy_mapping import Case, case_of, is_sharded
from benchmarks.accuracy_setup import DATA, Excluded, is_pretraining
from benchmarks.accuracy_speed import score_speed, speed_row, speed_summary
from benchmarks.accuracy_speed_text import speed_report
from benchmarks.accuracy_summary import counted_reasons, error_groups
from benchmarks.accuracy_text import report
from benchmarks.header import write
from benchmarks.hours_rows import read_hours_rows
from benchmarks.memory_rows import Row, read_rows
from benchmarks.program_buffers import deepspeed_bytes
from benchmarks.speed_rows import read_speed_rows
from planner import presets
from planner.counts.run import resolve
from planner.errors import PlanError
from planner.interval import Interval
from planner.memory.breakdown import Memory
from planner.memory.device import device_memory
from planner.plan import estimate

DEFAULT = DATA / "memory_rows.csv"
LARGE = 0.05  # an under-estimate above this is listed by its id
NEAR = 0.02  # of the limit: a verdict so near it is counted apart


@dataclass(frozen=True, slots=True)
class Scored:
    """A row with its prediction. `predicted`: byte, of the quantity that was measured, or of peak allocated for a
    verdict. `error`: signed ln(predicted / nearer end), 0 inside the range; None for a verdict. `right`: whether a
    verdict is right; of a peak None, but of a layout's: it ran, so that it fits. `open`: whether the planner's interval
    leaves the verdict open. `need`: predicted bytes of the device over those that CUDA can give."""

    case: Case
    predicted: float
    error: float | None
    right: bool | None
    open: bool = False
    need: float | None = None


@dataclass(frozen=True, slots=True)
class Left:
    """A row that was left out, and why."""

    row: Row
    reason: str
    detail: str


def score_row(row: Row) -> Scored | Left:
    """A row's score, or why it has none."""
    try:
        case = case_of(row)
        memory = estimate(case.config, replay=True).memory
    except Excluded as left:
        return Left(row, left.reason, left.detail)
    except PlanError as error:
        return Left(row, "refused by the planner", error.what)
    if case.is_layout:
        return _score_layout(case, memory)
    if case.field is None:
        if memory.fits is None or memory.peak_allocated_bytes.value is None:  # of the card, whatever the program holds
            return Left(row, "memory of the card not known", row.gpu)
        right = verdict_of(case) == (row.outcome == "fits")
        return Scored(case, float(memory.peak_allocated_bytes.value + sum(case.buffers)), None, right)
    found = getattr(memory, case.field)
    if isinstance(found, Interval):
        found = found.value
    if found is None:
        return Left(row, "quantity not predicted", case.field)
    predicted = float(found) + sum(case.buffers) + (memory.gradients_bytes if case.buckets else 0)
    assert row.low is not None and row.high is not None, "a peak row without a size was left out before"
    return Scored(case, predicted, signed_error(predicted, row.low, row.high), None)


def _score_layout(case: Case, memory: Memory) -> Scored | Left:
    """The score of a row whose GPUs share the model. Its verdict is that of the predicted bytes, whatever the interval
    around them: a run whose peak was measured did fit."""
    row, allocated, need = case.row, memory.peak_allocated_bytes.value, layout_need(case, memory)
    program = _program_bytes(case, memory)
    found = allocated if case.field is None else getattr(memory, case.field)
    found = found.value if isinstance(found, Interval) else found
    if found is None or allocated is None:
        return Left(row, "quantity not predicted", case.field or "")
    error = None if row.low is None or row.high is None else signed_error(found + program, row.low, row.high)
    if need is None:
        return Scored(case, float(found + program), error, None)
    right = (need <= 1) == (row.outcome != "oom")
    return Scored(case, float(found + program), error, right, memory.fits is None, need)


def _program_bytes(case: Case, memory: Memory) -> int:
    zero = "zero1" in case.row.sharding.lower()
    return deepspeed_bytes(case.config, memory, zero) if case.program else 0


def layout_need(case: Case, memory: Memory) -> float | None:
    """Predicted bytes of the device, its program's buffers included, over those that CUDA can give; None if unknown."""
    usable, allocated = memory.usable_bytes, memory.peak_allocated_bytes.value
    if usable is None or allocated is None:
        return None
    return (allocated + _program_bytes(case, memory) + memory.outside_bytes) / usable


def verdict_of(case: Case) -> bool | None:
    """Whether the planner says that a case fits, beside the buffers of the row's program where it has any.

    Of a layout the predicted bytes decide, whatever the interval around them.
    """
    memory = estimate(case.config, replay=not case.buffers).memory
    if case.is_layout:
        need = layout_need(case, memory)
        return None if need is None else need <= 1
    if not case.buffers:
        return memory.fits
    gpu = presets.gpu(case.config.hardware.gpu)
    return device_memory(resolve(case.config), gpu, memory.peak_requested_bytes, buffers=case.buffers).fits


def signed_error(predicted: float, low: float, high: float) -> float:
    """0 inside [low, high], else ln(predicted / nearer end): negative is an under-estimate."""
    if low <= predicted <= high:
        return 0.0
    return math.log(predicted / (low if predicted < low else high))


def summary_of(rows: Sequence[Row], results: Sequence[Scored | Left]) -> dict[str, Any]:
    """Everything that is reported, ready for JSON; sizes in GiB, errors as |ln|."""
    scored = [result for result in results if isinstance(result, Scored)]
    left = [result for result in results if isinstance(result, Left)]
    core = [row for row in rows if row.quality == "A" and is_pretraining(row)]
    whole = [row for row in core if not is_sharded(row)]
    kept = {id(s.case.row) for s in scored}
    return {
        "read": len(rows),
        "scored": len(scored),
        **error_groups([(s.case.row.source_group, s.error) for s in scored if s.error is not None]),
        "verdicts": {kind: _verdicts(scored, kind) for kind in ("oom", "fits")},
        "layout_verdicts": {kind: _layout_verdicts(scored, kind) for kind in ("oom", "peak")},
        "excluded": counted_reasons([lost.reason for lost in left]),
        "quality_a_pretraining": {
            "n": len(core),
            "sharded": len(core) - len(whole),
            "sharded_kept": sum(id(row) in kept and is_sharded(row) for row in core),
            "unsharded": len(whole),
            "unsharded_kept": sum(id(row) in kept for row in whole),
        },
        "wrong_verdicts": [row_of(s) for s in scored if s.right is False],
        "layouts_outside": [row_of(s) for s in scored if s.case.is_layout and abs(s.error or 0) > LARGE],
        "under_estimates": [row_of(s) for s in scored if s.error is not None and s.error < -LARGE],
    }


def _verdicts(scored: Sequence[Scored], kind: str) -> dict[str, int]:
    of_kind = [s for s in scored if s.right is not None and s.need is None and s.case.row.outcome == kind]
    return {"n": len(of_kind), "right": sum(bool(s.right) for s in of_kind)}


def _layout_verdicts(scored: Sequence[Scored], kind: str) -> dict[str, int]:
    """Of rows that ran out of memory, or ran: how many verdicts are right, all and beyond 2 % of the limit, and how
    many the planner's interval leaves open."""
    of_kind = [s for s in scored if s.need is not None and s.case.row.outcome == kind]
    clear = [s for s in of_kind if s.need is not None and abs(s.need - 1) > NEAR]
    return {
        "n": len(of_kind),
        "right": sum(bool(s.right) for s in of_kind),
        "clear": len(clear),
        "clear_right": sum(bool(s.right) for s in clear),
        "open": sum(s.open for s in of_kind),
    }


def row_of(result: Scored | Left) -> dict[str, Any]:
    """One row of `--rows`: sizes in GiB, the error signed (negative: too low)."""
    if isinstance(result, Left):
        return {"id": result.row.id, "excluded": result.reason, "detail": result.detail}
    row, gib = result.case.row, 2**30
    return {
        "id": row.id,
        "quantity": result.case.field or row.outcome,
        "predicted_gib": round(result.predicted / gib, 3),
        "actual_gib": None if row.low is None or row.high is None else [row.low / gib, row.high / gib],
        "error": result.error,
        "right": result.right,
        "need": result.need,
        "mapping": list(result.case.mapping),
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Score a file and print the result; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--memory", type=Path, default=DEFAULT, metavar="FILE", help="measured peaks, CSV")
    which.add_argument("--throughput", type=Path, metavar="FILE", help="measured speeds, CSV")
    which.add_argument("--gpu-hours", type=Path, metavar="FILE", help="GPU-hours of whole runs, CSV")
    parser.add_argument("--rows", action="store_true", help="every row with its prediction")
    parser.add_argument("--json", action="store_true", help="JSON instead of tables")
    parser.add_argument("--out", type=Path, metavar="RESULT.json", help="the result as JSON, with its header")
    options = parser.parse_args(argv)
    try:
        found, every, text = _scored_file(options)
    except PlanError as error:
        print(error.message(), file=sys.stderr)
        return 2
    if options.rows:
        found["rows"] = every
    if options.out:
        write(found, options.out)
    print(json.dumps(found, indent=1) if options.json else text(found))
    return 0


def _scored_file(options: argparse.Namespace) -> tuple[dict[str, Any], list[dict[str, Any]], Callable[..., str]]:
    """The summary of the file that was asked for, every row of it, and what writes it as text. Raises PlanError."""
    if options.throughput:
        speeds = read_speed_rows(options.throughput)
        fast = [score_speed(row) for row in speeds]
        return speed_summary(speeds, fast), [speed_row(result) for result in fast], speed_report
    if options.gpu_hours:
        runs = read_hours_rows(options.gpu_hours)
        long = [score_hours(row) for row in runs]
        return hours_summary(runs, long), [hours_row(result) for result in long], speed_report
    rows = read_rows(options.memory)
    results = [score_row(row) for row in rows]
    return summary_of(rows, results), [row_of(result) for result in results], report


if __name__ == "__main__":
    sys.exit(main())
