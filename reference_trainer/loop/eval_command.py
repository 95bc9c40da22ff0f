"""The hook of `--eval-command`: a command of the user's, run by the shell where there is something new to judge.

It runs after each evaluation and each checkpoint, once per step, while training waits. It finds in its environment

    GPTPLAN_STEP         the step just done
    GPTPLAN_TOKENS       tokens trained on so far
    GPTPLAN_RUN          the run directory
    GPTPLAN_CHECKPOINT   the newest complete checkpoint, which may be of an earlier step; absent before the first

and the last line that it prints on stdout is a JSON object of numbers, {"accuracy": 0.31}. They go into events.jsonl
with their step, and to the trackers as `eval/accuracy`: metrics.jsonl keeps one row per step. A command that fails or
takes too long is told of, and training goes on.
"""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from planner.units import format_duration
from reference_trainer.checkpoint.atomic import list_checkpoints

TIMEOUT = 600.0  # seconds that training waits at most, where nothing is said
POLL = 0.05  # seconds between looks
STDOUT_TAIL_BYTES = 64 * 1024  # bytes of stdout that are looked at


@dataclass(frozen=True, slots=True)
class CommandResult:
    """What a command said: its numbers, or what was wrong with it; and how long training waited for it."""

    numbers: dict[str, float]
    problem: str
    seconds: float


def run_command(command: str, root: Path, step: int, tokens: int, stop: Callable[[float], str]) -> CommandResult:
    """Run `command` in the caller's directory.

    stop: given the seconds so far, why the command is to be ended now, or an empty text.
    """
    checkpoints = list_checkpoints(root / "checkpoints")
    environment = os.environ | {"GPTPLAN_STEP": str(step), "GPTPLAN_TOKENS": str(tokens)}
    environment["GPTPLAN_RUN"] = str(root.absolute())
    environment.pop("GPTPLAN_CHECKPOINT", None)
    if checkpoints:
        environment["GPTPLAN_CHECKPOINT"] = str(checkpoints[-1].absolute())
    begin = time.monotonic()
    try:
        # files and no pipes: a grandchild that lives on would keep a pipe open
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            problem = _finish(_start(command, environment, out, err), begin, stop)
            if not problem:
                return CommandResult(numbers_in(_tail(out)), "", time.monotonic() - begin)
            said = _tail(err).strip().splitlines()
            problem += f": {said[-1]}" if said else ""
    except (OSError, ValueError) as error:
        problem = str(error)
    return CommandResult({}, problem, time.monotonic() - begin)


def _start(command: str, environment: dict[str, str], out: IO[bytes], err: IO[bytes]) -> subprocess.Popen[bytes]:
    # a session of its own: Ctrl-C is for the run, and all that the command started can be ended together
    return subprocess.Popen(
        command, shell=True, env=environment, stdin=subprocess.DEVNULL, stdout=out, stderr=err, start_new_session=True
    )


def _finish(child: subprocess.Popen[bytes], begin: float, stop: Callable[[float], str]) -> str:
    """Wait for the command; what went wrong, or an empty text."""
    why = ""
    try:
        while child.poll() is None and not why:
            time.sleep(POLL)
            why = stop(time.monotonic() - begin)
    finally:
        if child.poll() is None:
            os.killpg(child.pid, signal.SIGKILL)
            child.wait()
    return why or (f"exit code {child.returncode}" if child.returncode else "")


def _tail(file: IO[bytes]) -> str:
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - STDOUT_TAIL_BYTES))
    return file.read().decode(errors="replace")


def numbers_in(text: str) -> dict[str, float]:
    """The JSON object of numbers in the last line. Raises ValueError for anything else."""
    last = next((line for line in reversed(text.splitlines()) if line.strip()), "")
    try:
        read = json.loads(last)
    except ValueError:
        read = None
    if not isinstance(read, dict):
        raise ValueError(f"the last line of stdout is no JSON object: {last[:80]!r}")
    for name, value in read.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise ValueError(f"{name!r} is no finite number: {json.dumps(value)[:80]}")
    return {name: float(value) for name, value in read.items()}


def limit(timeout: float, stopping: Callable[[], bool]) -> Callable[[float], str]:
    """When a command is ended: after `timeout` seconds, and when the run itself was asked to stop."""

    def stop(seconds: float) -> str:
        if stopping():
            return "ended, because the run stops"
        return f"not done after {format_duration(timeout)}" if seconds >= timeout else ""

    return stop
