"""Predicted memory against published measurements.

    python -m benchmarks.accuracy [--memory FILE] [--rows] [--json]

FILE is a CSV with the columns of benchmarks/data/memory_rows.csv, which is scored when none is given. The error of a
row is 0 inside the two readings of an ambiguous unit, else |ln(predicted / nearer end)|. Out-of-memory rows and
largest-batch rows are verdicts, counted apart. docs/why/accuracy.md says how each source is read, and why some rows are
left out.
Exit codes: 0 scored, 2 the file cannot be used.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.accuracy_mapping import DATA, Case, Excluded, case_of, is_pretraining, is_sharded
from benchmarks.accuracy_text import report
from benchmarks.memory_rows import Row, read_rows
from planner import presets
from planner.counts.run import resolve
from planner.errors import PlanError
from planner.interval import Interval
from planner.memory.device import device_memory
from planner.plan import estimate

DEFAULT = DATA / "memory_rows.csv"
LARGE = 0.05  # an under-estimate above this is listed by its id


@dataclass(frozen=True, slots=True)
class Scored:
    """A row with its prediction. `predicted`: byte, of the quantity that was measured, or of peak allocated for a
    verdict. `error`: signed ln(predicted / nearer end), 0 inside the range; None for a verdict. `right`: whether a
    verdict is right, else None."""

    case: Case
    predicted: float
    error: float | None
    right: bool | None


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


def verdict_of(case: Case) -> bool | None:
    """Whether the planner says that a case fits, beside the buffers of the row's program where it has any."""
    memory = estimate(case.config, replay=not case.buffers).memory
    if not case.buffers:
        return memory.fits
    gpu = presets.gpu(case.config.hardware.gpu)
    return device_memory(resolve(case.config), gpu, memory.peak_requested_bytes, buffers=case.buffers).fits


def signed_error(predicted: float, low: float, high: float) -> float:
    """0 inside [low, high], else ln(predicted / nearer end): negative is an under-estimate."""
    if low <= predicted <= high:
        return 0.0
    return math.log(predicted / (low if predicted < low else high))


def percentile(values: Sequence[float], share: float) -> float:
    """The value below which `share` of the sorted values lie, interpolated between neighbours (numpy's default)."""
    ordered = sorted(values)
    place = share * (len(ordered) - 1)
    below = math.floor(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (place - below)


def summary_of(rows: Sequence[Row], results: Sequence[Scored | Left]) -> dict[str, Any]:
    """Everything that is reported, ready for JSON; sizes in GiB, errors as |ln|."""
    scored = [result for result in results if isinstance(result, Scored)]
    left = [result for result in results if isinstance(result, Left)]
    groups = _groups(scored)
    core = [row for row in rows if row.quality == "A" and is_pretraining(row)]
    whole = [row for row in core if not is_sharded(row)]
    kept = {id(s.case.row) for s in scored}
    return {
        "read": len(rows),
        "scored": len(scored),
        "groups": groups,
        "median_of_group_medians": median(g["median"] for g in groups) if groups else None,
        "median_of_group_p90": median(g["p90"] for g in groups) if groups else None,
        "verdicts": {kind: _verdicts(scored, kind) for kind in ("oom", "fits")},
        "excluded": dict(Counter(lost.reason for lost in left).most_common()),
        "quality_a_pretraining": {
            "n": len(core),
            "sharded": len(core) - len(whole),
            "unsharded": len(whole),
            "unsharded_kept": sum(id(row) in kept for row in whole),
        },
        "wrong_verdicts": [row_of(s) for s in scored if s.right is False],
        "under_estimates": [row_of(s) for s in scored if s.error is not None and s.error < -LARGE],
    }


def _groups(scored: Sequence[Scored]) -> list[dict[str, Any]]:
    by_group: dict[str, list[Scored]] = defaultdict(list)
    for result in scored:
        if result.error is not None:
            by_group[result.case.row.source_group].append(result)
    found = []
    for name, results in sorted(by_group.items()):
        errors = [abs(result.error or 0.0) for result in results]
        found.append(
            {
                "source_group": name,
                "n": len(errors),
                "median": median(errors),
                "p90": percentile(errors, 0.9),
                "worst": max(errors),
            }
        )
    return found


def _verdicts(scored: Sequence[Scored], kind: str) -> dict[str, int]:
    of_kind = [s for s in scored if s.right is not None and s.case.row.outcome == kind]
    return {"n": len(of_kind), "right": sum(bool(s.right) for s in of_kind)}


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
        "mapping": list(result.case.mapping),
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Score a file and print the result; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--memory", type=Path, default=DEFAULT, metavar="FILE", help="measurements, CSV")
    parser.add_argument("--rows", action="store_true", help="every row with its prediction")
    parser.add_argument("--json", action="store_true", help="JSON instead of tables")
    options = parser.parse_args(argv)
    try:
        rows = read_rows(options.memory)
    except PlanError as error:
        print(error.message(), file=sys.stderr)
        return 2
    results = [score_row(row) for row in rows]
    found = summary_of(rows, results)
    if options.rows:
        found["rows"] = [row_of(result) for result in results]
    print(json.dumps(found, indent=1) if options.json else report(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
