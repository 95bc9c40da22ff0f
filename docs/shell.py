"""What the program prints, as a page shows it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
COLUMNS = "110"
AS_OF = "2026-11-21"  # else the age of a price would change from day to day


def command(*arguments: str) -> str:
    """What a fresh process prints for these arguments on stdout, off a terminal, on a machine that shows no GPU."""
    done = subprocess.run(
        [sys.executable, "-m", "gptplan", *arguments],
        cwd=ROOT,
        env={"COLUMNS": COLUMNS, "TERMINAL_WIDTH": COLUMNS, "NO_COLOR": "1", "LC_ALL": "C.UTF-8", "PATH": ""},
        capture_output=True,
        encoding="utf-8",
        timeout=120,
        check=True,
    )
    return "\n".join(line.rstrip() for line in done.stdout.splitlines())


def console(*lines: str) -> str:
    """Lines as a code block."""
    return "\n".join(["```console", *lines, "```"])
