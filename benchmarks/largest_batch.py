"""The largest micro-batch that is predicted to fit, and the largest that was measured to fit.

    python -m benchmarks.largest_batch [--memory FILE]

Of rows whose outcome is "fits": in the default file each is the largest batch that ran. A verdict is right or wrong;
this says by how much. Of runs on several GPUs there are batches that did not fit: what fits is smaller, "<".
Exit codes: 0 compared, 2 the file cannot be used.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from benchmarks.accuracy import DEFAULT, verdict_of
from benchmarks.accuracy_mapping import Case, case_of, is_sharded
from benchmarks.accuracy_setup import Excluded
from benchmarks.memory_rows import read_rows
from planner.errors import PlanError

MOST = 1024  # sequences; the rows' largest is 272


def largest_batch(case: Case) -> int:
    """Sequences of the largest micro-batch that fits by the planner's verdict, found by halving; 0 where none does."""
    low, high = 0, MOST
    while high - low > 1:
        middle = (low + high) // 2
        training = case.config.training.model_copy(update={"micro_batch": middle})
        if verdict_of(replace(case, config=case.config.model_copy(update={"training": training}))):
            low = middle
        else:
            high = middle
    return low


def main(argv: Sequence[str] | None = None) -> int:
    """Compare every bound of a file; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--memory", type=Path, default=DEFAULT, metavar="FILE", help="measurements, CSV")
    try:
        rows = read_rows(parser.parse_args(argv).memory)
    except PlanError as error:
        print(error.message(), file=sys.stderr)
        return 2
    print(f"{'model':24} {'card':26} {'runtime':9} seen  planner")
    for row in rows:
        if (
            row.outcome not in ("fits", "oom")
            or row.micro_batch is None
            or (row.outcome == "oom" and not is_sharded(row))
        ):
            continue
        try:
            case = case_of(row)
        except Excluded:
            continue
        found, runtime = largest_batch(case), case.config.training.runtime
        if row.outcome == "oom":
            seen, off = f"<{row.micro_batch}", "" if found < row.micro_batch else "too large"
        else:
            seen, off = str(row.micro_batch), f"{found / row.micro_batch - 1:+.0%}"
        print(f"{row.model:24} {row.gpu:26} {runtime:9} {seen:>5} {found:7} {off:>5}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
