"""Ctrl-C at random moments of the program's start: how each process ended, and whether it showed a traceback.

    python -m benchmarks.interrupts [--times N] [--seed S] [--json FILE]

The program runs in processes of its own, one after the other: half of them plan, half import PyTorch. The clock starts
when the program has taken over SIGINT, its first act; what is before that is Python's own start.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.header import write

PLAN = ("estimate", "--params", "125M", "--tokens", "10B", "--gpu", "a100-80gb")
TRAINER = ("calibrate",)  # imports PyTorch, then measures for seconds
MOMENTS = {PLAN: 0.6, TRAINER: 5.0}  # seconds in which the signal comes
ENDED = (0, 130, -signal.SIGINT)  # done before it came; by our handler; by the default action, 130 in a shell
CHILD = """
import os, signal, sys
real = signal.signal
def told(*arguments):
    found = real(*arguments)
    signal.signal = real
    os.write(int(sys.argv.pop(1)), b"r")
    return found
signal.signal = told
from gptplan.start import start
start()
"""


def interrupted(words: Sequence[str], seconds: float, cache: Path) -> tuple[int, str]:
    """Exit code and stderr of the program with these words, interrupted so long after it took over SIGINT."""
    ours, theirs = os.pipe()
    environment = os.environ | {"XDG_CACHE_HOME": str(cache), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", CHILD, str(theirs), *words]
    with subprocess.Popen(
        command, env=environment, pass_fds=(theirs,), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as process:
        os.close(theirs)
        os.read(ours, 1)
        os.close(ours)
        time.sleep(seconds)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=120)
    return process.returncode, said


def interruptions(times: int, seed: int) -> dict[str, Any]:
    """How the processes ended, by exit code, and the tracebacks that they showed."""
    rng, codes, tracebacks = random.Random(seed), Counter[int](), list[str]()
    with tempfile.TemporaryDirectory() as cache:
        for number in range(times):
            words = (PLAN, TRAINER)[number % 2]
            code, said = interrupted(words, rng.uniform(0.0, MOMENTS[words]), Path(cache))
            codes[code] += 1
            if code not in ENDED or "Traceback" in said or "Exception ignored" in said:
                tracebacks.append(said[-2000:])
    return {"times": times, "seed": seed, "codes": dict(sorted(codes.items())), "tracebacks": tracebacks}


def main() -> None:
    """Run it, and print or write the result; exit code 1 if there was a traceback."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--times", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    found = interruptions(asked.times, asked.seed)
    write(found, asked.json)
    sys.exit(1 if found["tracebacks"] else 0)


if __name__ == "__main__":
    main()
