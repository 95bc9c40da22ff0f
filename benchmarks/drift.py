"""Compares the planner's memory with that of the installed PyTorch: shows what a new version of PyTorch changes.

    python -m benchmarks.drift [--out FILE] [--few]

Every case of docs/reference/coverage.md is simulated and replayed: the peak of a micro-batch, its allocations in order,
what autograd saves, and the peaks of all phases with five blocks. For another version, in a fresh environment:

    pip install 'torch==2.12.*' && pip install -e '.[train]' && python -m benchmarks.drift

Writes benchmarks/results/drift-torch-VERSION.json; exit code 1 where anything differs by more than 64 bytes.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from benchmarks.header import header
from benchmarks.memory_reference import (
    SCALARS,
    Made,
    difference_of,
    phase_peaks,
    pytorch_allocations,
    saved_bytes,
    simulated_allocations,
)
from benchmarks.option_cases import PLAIN, Row, config_of, long_config_of, long_rows, rows
from planner.counts.run import resolve
from planner.memory.phases import simulate_run

RESULTS = Path(__file__).parent / "results"


def compared(case: str, what: str, predicted: int, replayed: int, where: str = "") -> dict[str, Any]:
    """One row: bytes predicted and replayed. `where`: the first difference in order, if the sums are equal."""
    return {
        "case": case,
        "compared": what,
        "predicted_bytes": predicted,
        "replayed_bytes": replayed,
        "difference_bytes": predicted - replayed,
        "first_difference": where,
    }


def of_micro_batch(row: Row) -> Iterator[dict[str, Any]]:
    """Two rows: the allocations of a micro-batch in order, and the bytes that autograd saves."""
    config = config_of(row)
    simulated, replayed = simulated_allocations(config), pytorch_allocations(config)
    yield compared(row.id, "micro-batch peak", _peak(simulated), _peak(replayed), difference_of(replayed, simulated))
    predicted, real = simulate_run(resolve(config)).saved_by_operator, saved_bytes(config)
    parts = [name for name in {**predicted, **real} if predicted.get(name, 0) != real.get(name, 0)]
    yield compared(row.id, "saved bytes", sum(predicted.values()), sum(real.values()), ", ".join(parts))


def of_phases(row: Row) -> Iterator[dict[str, Any]]:
    """Peaks of all phases with five blocks."""
    for p in phase_peaks(long_config_of(row)):
        yield compared(f"{row.id}, 5 blocks", p.phase, p.predicted, p.replayed)


def _peak(made: Made) -> int:
    return max(live for _, live in made)


def differs(row: dict[str, Any]) -> bool:
    """Whether a row differs by more than scalars, or in its order."""
    return abs(row["difference_bytes"]) > SCALARS or bool(row["first_difference"])


def report(few: bool) -> dict[str, Any]:
    """All rows, and how many of them agree; few: only the plain cases."""
    found: list[dict[str, Any]] = []
    for row in rows():
        if not few or row.case in PLAIN:
            found += of_micro_batch(row)
    for row in long_rows():
        if not few or row.case in PLAIN:
            found += of_phases(row)
    off = [row for row in found if differs(row)]
    return {
        "header": header(),
        "rows": len(found),
        "exact": len(found) - len(off),
        "largest_difference_bytes": max((r["difference_bytes"] for r in found), key=abs),
        "different": off,
        "comparisons": found,
    }


def text_of(found: dict[str, Any]) -> str:
    """JSON, one line for each comparison."""
    head = {key: value for key, value in found.items() if key not in ("different", "comparisons")}
    lines = [json.dumps(head, indent=1)[:-2]]
    for name in ("different", "comparisons"):
        inner = ",\n".join("  " + json.dumps(row, ensure_ascii=False) for row in found[name])
        lines.append(f' "{name}": [\n{inner}\n ]' if inner else f' "{name}": []')
    return ",\n".join(lines) + "\n}\n"


def main(arguments: list[str] | None = None) -> int:
    """Write the report and print a summary; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    version = torch.__version__.partition("+")[0]
    parser.add_argument("--out", type=Path, default=RESULTS / f"drift-torch-{version}.json")
    parser.add_argument("--few", action="store_true", help="the two plain models only")
    options = parser.parse_args(arguments)
    found = report(options.few)
    options.out.write_text(text_of(found), encoding="utf-8")
    print(f"torch {torch.__version__}: {found['exact']} of {found['rows']} comparisons exact; {options.out}")
    for row in found["different"][:20]:
        print(f"  {row['case']}: {row['compared']} {row['difference_bytes']:+,} bytes {row['first_difference']}")
    return 1 if found["different"] else 0


if __name__ == "__main__":
    sys.exit(main())
