"""A seeded sample of small faults in planner and trainer, each with the test that notices it, or none.

    python -m benchmarks.mutants [--count N] [--seed N] [--json FILE] [--again]

Each fault is put into a copy of the repository, where the tests of its file run until one fails. That test must pass
without the fault. Results are written after each fault: the same command goes on where it was stopped, and --again
tries the survivors once more. Survivors that change nothing a user could see are explained in
benchmarks/data/mutants_explained.json. Exit code 1 if fewer than 95 % are noticed, or a survivor has no explanation.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.header import ROOT, write
from benchmarks.mutant_tests import closest_tests, wider_tests
from benchmarks.mutations import Mutation, sample
from benchmarks.warm_pytest import WarmPytest

PACKAGES = ("planner", "reference_trainer")
EXPLAINED = ROOT / "benchmarks" / "data" / "mutants_explained.json"
# seconds of the tests that import the file, and of the wider ones: a fault that is not noticed by then has survived
LIMIT, WIDER_LIMIT = 120.0, 60.0
WANTED = 0.95


def copied(root: Path, to: Path) -> Path:
    """A copy of the files that git tracks or would track, as they are now."""
    words = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(words, cwd=root, capture_output=True, text=True, check=True).stdout.split("\0")
    for name in filter(None, listed):
        with suppress(FileNotFoundError):  # deleted and not yet committed
            (to / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(root / name, to / name)
    return to


class Laboratory:
    """A copy of the repository, where one fault after the other is tried."""

    def __init__(self, copy: Path) -> None:
        self.copy, self.pytest = copy, WarmPytest(copy)
        self._moment = int(time.time()) - 10_000_000  # of the next write
        self._sound: dict[str, bool] = {}

    def write(self, file: str, text: str) -> None:
        """Write a file with a time of its own: bytecode is reused by time and size, which a fault may leave equal."""
        path = self.copy / file
        path.write_text(text, encoding="utf-8")
        self._moment += 1
        os.utime(path, (self._moment, self._moment))

    def noticed_by(self, mutation: Mutation, tests: list[str], limit: float) -> tuple[str | None, int]:
        """The first test that fails with this fault and passes without; None if all pass. Also how many files ran."""
        left = list(tests)
        while left:
            source = (self.copy / mutation.file).read_text(encoding="utf-8")
            self.write(mutation.file, mutation.applied(source))
            try:
                failed = self.pytest.first_failure(left, limit)
            finally:
                self.write(mutation.file, source)
            if failed is None:
                return None, len(tests)
            if self._is_sound(failed):
                return failed, len(tests)
            file = failed.partition("::")[0]  # it fails without the fault as well: what is behind it may still notice
            left = left[left.index(file) + 1 :] if file in left else left[1:]
        return None, len(tests)

    def _is_sound(self, test: str) -> bool:
        if test not in self._sound:
            self._sound[test] = self.pytest.first_failure([test], LIMIT) is None
            assert self._sound[test] or "::" in test, f"{test} cannot be run without a fault either"
        return self._sound[test]

    def outcome(self, mutation: Mutation) -> dict[str, Any]:
        """The row of a mutant: what it is, and which test noticed it."""
        begin = time.monotonic()
        closest = closest_tests(self.copy, mutation.file)
        test, files = self.noticed_by(mutation, closest, LIMIT)
        if test is None:
            wider = wider_tests(self.copy, mutation.file)
            # a file that no test imports by name, such as one that a package collects, has these alone
            test, more = self.noticed_by(mutation, wider, WIDER_LIMIT if closest else LIMIT)
            files += more
        row = {key: value for key, value in asdict(mutation).items() if key not in ("begin", "end")}
        seconds = round(time.monotonic() - begin, 1)
        return row | {"noticed_by": test, "test_files": files, "seconds": seconds}


def key_of(row: dict[str, Any]) -> str:
    """The key of a row's mutation."""
    return f"{row['file']} · {row['function']} · {row['operator']} · {row['before']} → {row['after']}"


def summed_up(seed: int, rows: list[dict[str, Any]], explained: dict[str, str]) -> dict[str, Any]:
    """The result: counts first, then survivors with their explanations, then every mutant."""
    for row in rows:
        row.pop("explanation", None)
        if row["noticed_by"] is None:
            row["explanation"] = explained.get(key_of(row))
    survivors = [row for row in rows if row["noticed_by"] is None]
    return {
        "seed": seed,
        "mutants": len(rows),
        "noticed": len(rows) - len(survivors),
        "fraction_noticed": round(1 - len(survivors) / len(rows), 4) if rows else None,
        "unexplained": [key_of(row) for row in survivors if row["explanation"] is None],
        "rows": rows,
    }


def earlier_rows(path: Path | None, seed: int, again: bool) -> dict[str, dict[str, Any]]:
    """Rows of an earlier call with this seed by key; with `again`, those that were noticed."""
    if path is None or not path.exists():
        return {}
    found = json.loads(path.read_text(encoding="utf-8"))
    rows = found["rows"] if found.get("seed") == seed else []
    return {key_of(row): row for row in rows if row["noticed_by"] is not None or not again}


def main() -> int:
    """Try them and write the result; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=60)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--again", action="store_true")
    options = parser.parse_args()
    explained = json.loads(EXPLAINED.read_text(encoding="utf-8"))
    known, rows = earlier_rows(options.json, options.seed, options.again), list[dict[str, Any]]()
    with tempfile.TemporaryDirectory() as folder:
        laboratory = Laboratory(copied(ROOT, Path(folder).resolve()))
        for mutation in sample(laboratory.copy, PACKAGES, options.count, options.seed):
            row = known.get(mutation.key) or laboratory.outcome(mutation)
            rows.append(row)
            print(f"{row['seconds']:6.1f} s  {row['noticed_by'] or 'SURVIVED'}  {mutation.key}", file=sys.stderr)
            if options.json is not None:
                write(summed_up(options.seed, rows, explained), options.json)
    result = summed_up(options.seed, rows, explained)
    write(result, options.json)
    return 1 if result["unexplained"] or result["fraction_noticed"] < WANTED else 0


if __name__ == "__main__":
    sys.exit(main())
