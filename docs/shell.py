"""What the program prints, as a page shows it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
COLUMNS = "110"
AS_OF = "2026-11-21"  # else the age of a price would change from day to day


END = "\0"  # of what one call printed
ONE_AFTER_ANOTHER = f"""
import sys
from gptplan.app import main
for words in sys.argv[1:]:
    sys.argv = ["gptplan", *words.split()]
    try:
        main()
    except SystemExit as end:
        assert not end.code, (words, end.code)
    print({END!r}, end="", flush=True)
"""


def command(*arguments: str) -> str:
    """What a fresh process prints for these arguments on stdout, off a terminal, on a machine that shows no GPU."""
    return _printed("-m", "gptplan", *arguments)


def commands(*lines: str) -> list[str]:
    """What one process prints for each of these command lines: starting Python anew would be most of their time."""
    return [part.removesuffix("\n") for part in _printed("-c", ONE_AFTER_ANOTHER, *lines).split(END)[:-1]]


def _printed(*arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, *arguments],
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
