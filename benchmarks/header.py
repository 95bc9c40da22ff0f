"""The header of every result: when it was measured, from which commit, by which command, on what.

    python -m benchmarks.header COMMAND [WORD …] > benchmarks/results/NAME.header.json

prints it for a result that is text: `demo.header.json` belongs to demo.txt, `hour/header.json` to the folder hour.
In a JSON result it stands first, under "header". What is not known is null, and "notes" says why.
"""

from __future__ import annotations

import json
import os
import platform
import shlex
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("gptplan", "torch", "numpy", "pydantic", "typer", "rich", "textual")


def header(command: Sequence[str] | None = None) -> dict[str, Any]:
    """Date, commit, command line, processor, cores, memory and versions of this moment on this machine."""
    words = list(command) if command else ["python", *sys.orig_argv[1:]]
    known = {
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "commit": _commit(),
        "command": shlex.join(words).replace(f"{ROOT}{os.sep}", ""),
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "memory_bytes": _memory_bytes(),
        "versions": {"python": platform.python_version(), **{name: _version(name) for name in PACKAGES}},
    }
    missing = [key for key, value in known.items() if value is None]
    absent = [f"versions.{name}" for name, value in known["versions"].items() if value is None]
    notes = {key: "this machine does not tell" for key in missing} | {key: "not installed" for key in absent}
    return known | ({"notes": notes} if notes else {})


def text_of(result: Mapping[str, Any]) -> str:
    """A result as JSON, with its header first."""
    return json.dumps({"header": header(), **result}, indent=1, allow_nan=False) + "\n"


def write(result: Mapping[str, Any], path: Path | None) -> None:
    """Write a result with its header to a file, or to standard output."""
    if path is None:
        sys.stdout.write(text_of(result))
    else:
        path.write_text(text_of(result), encoding="utf-8")


def _commit() -> str | None:
    """The commit that is checked out, with + if files differ from it."""
    try:
        told = [
            subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()
            for words in (("rev-parse", "HEAD"), ("status", "--porcelain", "--untracked-files=no"))
        ]
    except (OSError, subprocess.CalledProcessError):
        return None
    return told[0] + ("+" if told[1] else "")


def _cpu() -> str | None:
    """The processor's model; Linux only."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or None
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or None


def _memory_bytes() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError):
        return None


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit("say the command that made the result: python -m benchmarks.header make demo")
    print(json.dumps(header(sys.argv[1:]), indent=1))
