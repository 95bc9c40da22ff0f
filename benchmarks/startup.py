"""Seconds of `gptplan estimate` as a whole process, and of the bare imports of its framework, in turn.

    python -m benchmarks.startup [--runs 15] [--json FILE]

Bytecode is compiled first, as an installed package has it. A ratio of two things run in turn holds on a busy
machine, where a single time does not.
"""

from __future__ import annotations

import argparse
import compileall
import os
import subprocess
import sys
import time
from pathlib import Path
from statistics import median

from benchmarks.header import write

ROOT = Path(__file__).resolve().parent.parent
ESTIMATE = [sys.executable, "-m", "gptplan", "estimate", "--params", "125M", "--tokens", "10B", "--gpu", "a100-80gb"]
BARE = [sys.executable, "-c", "import typer, rich.table, pydantic"]


def seconds(command: list[str]) -> float:
    """Wall-clock seconds of a whole process."""
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    begin = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd=ROOT, env=environment)
    return time.perf_counter() - begin


def main() -> None:
    """Time both in turn and print medians and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=15)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    for package in ("gptplan", "planner"):
        compileall.compile_dir(ROOT / package, quiet=1)
    for command in (ESTIMATE, BARE):
        seconds(command)
    pairs = [(seconds(ESTIMATE), seconds(BARE)) for _ in range(options.runs)]
    found = {
        "runs": options.runs,
        "estimate_seconds": median(a for a, _ in pairs),
        "estimate_seconds_min": min(a for a, _ in pairs),
        "bare_imports_seconds": median(b for _, b in pairs),
        "bare_imports_seconds_min": min(b for _, b in pairs),
        "median_ratio": median(a / b for a, b in pairs),
    }
    write(found, options.json)


if __name__ == "__main__":
    main()
