"""Every property of the tests with many times the examples of `make test`, and what came of each.

    python -m benchmarks.fuzz [--times N] [--json FILE] [WORD …]

WORDs go to pytest: files, folders, or options such as -n 1. The exit code is pytest's: 1 if a property does not hold.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

from benchmarks.header import ROOT, write

TIMES = 20
# seconds: a property may take as long as its examples need
PYTEST = ("-m", "pytest", "-m", "hypothesis", "-o", "timeout=3600", "-o", "faulthandler_timeout=4000")


def outcomes(junit: str) -> dict[str, Any]:
    """What a report of pytest (JUnit's XML) says: the number of properties, and each one's outcome and seconds."""
    found = []
    for case in ET.fromstring(junit).iter("testcase"):
        kinds = {part.tag for part in case} & {"failure", "error", "skipped"}
        found.append(
            {
                "property": f"{case.get('classname')}.{case.get('name')}",
                "outcome": min(kinds, default="passed"),
                "seconds": round(float(case.get("time", "nan")), 1),
            }
        )
    found.sort(key=lambda row: str(row["property"]))
    return {
        "properties": len(found),
        "failed": [row["property"] for row in found if row["outcome"] in ("failure", "error")],
        "outcomes": found,
    }


def fuzz(times: int, words: list[str]) -> tuple[int, dict[str, Any]]:
    """Run the properties with `times` as many examples: pytest's exit code, and the outcomes."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "junit.xml"
        command = [sys.executable, *PYTEST, f"--junitxml={report}", *words]
        done = subprocess.run(command, cwd=ROOT, env=os.environ | {"EXAMPLES": str(times)}, check=False)
        return done.returncode, {"times": times, **outcomes(report.read_text(encoding="utf-8"))}


def main() -> int:
    """Run them and write the result; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=TIMES)
    parser.add_argument("--json", type=Path)
    options, words = parser.parse_known_args()
    code, found = fuzz(options.times, words)
    write(found, options.json)
    return code


if __name__ == "__main__":
    sys.exit(main())
