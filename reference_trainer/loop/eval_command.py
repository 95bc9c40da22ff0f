"""`--eval-command`: a shell command of the user that evaluates the newest checkpoint.

It runs after each evaluation and each checkpoint, at most once per step, while training waits. Its environment has

    GPTPLAN_STEP         the step just done
    GPTPLAN_TOKENS       tokens trained on so far
    GPTPLAN_RUN          the run directory
    GPTPLAN_CHECKPOINT   the newest complete checkpoint, which may be of an earlier step; absent before the first

and the last line that it prints to stdout is a JSON object of numbers, such as {"accuracy": 0.31}. They are written to
events.jsonl with their step, and to the trackers as `eval/accuracy`; metrics.jsonl keeps one row per step. A command
that fails or takes too long is logged, and training continues.
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

from planner.activity import doing
from planner.counts.run import tokens_per_step
from planner.json_input import parsed_json
from planner.units import format_bytes, format_duration, format_number
from reference_trainer.checkpoint.atomic import list_checkpoints
from reference_trainer.loop.job import RunningJob

TIMEOUT = 600.0  # seconds that training waits by default
POLL = 0.05  # seconds between checks whether the command has ended
MOST_NUMBERS = 1000  # of one evaluation
STDOUT_TAIL_BYTES = 64 * 1024  # bytes at the end of stdout that are read
MOST_OUTPUT_BYTES = 1 << 30  # of stdout or stderr: `yes` would fill the disk until the time limit


@dataclass(frozen=True, slots=True)
class CommandResult:
    """Numbers of an eval command, or its problem; and the seconds that training waited for it."""

    numbers: dict[str, float]
    problem: str
    seconds: float


@doing("running the eval command")
def run_command(command: str, root: Path, step: int, tokens: int, stop: Callable[[float], str]) -> CommandResult:
    """Run `command` in the current directory.

    stop: takes the seconds so far and returns why the command must be stopped now, or "".
    """
    checkpoints = list_checkpoints(root / "checkpoints")
    environment = os.environ | {"GPTPLAN_STEP": str(step), "GPTPLAN_TOKENS": str(tokens)}
    environment["GPTPLAN_RUN"] = str(root.absolute())
    environment.pop("GPTPLAN_CHECKPOINT", None)
    if checkpoints:
        environment["GPTPLAN_CHECKPOINT"] = str(checkpoints[-1].absolute())
    begin = time.monotonic()
    try:
        # files, not pipes: a grandchild that outlives the command would keep a pipe open
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            problem = _finish(_start(command, environment, out, err), begin, lambda s: stop(s) or _too_much(out, err))
            if not problem:
                return CommandResult(numbers_in(_tail(out)), "", time.monotonic() - begin)
            lines = _tail(err).strip().splitlines()
            problem += f": {lines[-1]}" if lines else ""
    except (OSError, ValueError) as error:
        problem = str(error)
    return CommandResult({}, problem, time.monotonic() - begin)


def _start(command: str, environment: dict[str, str], out: IO[bytes], err: IO[bytes]) -> subprocess.Popen[bytes]:
    # its own session: Ctrl-C reaches only the run, and the command can be killed with all its children
    return subprocess.Popen(
        command, shell=True, env=environment, stdin=subprocess.DEVNULL, stdout=out, stderr=err, start_new_session=True
    )


def _finish(child: subprocess.Popen[bytes], begin: float, stop: Callable[[float], str]) -> str:
    """Wait for the command. Returns what went wrong, or ""."""
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


def _too_much(*files: IO[bytes]) -> str:
    if any(os.fstat(file.fileno()).st_size > MOST_OUTPUT_BYTES for file in files):
        return f"it printed more than {format_bytes(MOST_OUTPUT_BYTES)}"
    return ""


def _tail(file: IO[bytes]) -> str:
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - STDOUT_TAIL_BYTES))
    return file.read().decode(errors="replace")


def numbers_in(text: str) -> dict[str, float]:
    """The numbers in the last line of `text`, a JSON object. Raises ValueError for anything else."""
    last = next((line for line in reversed(text.splitlines()) if line.strip()), "")
    try:
        read = parsed_json(last, allow_nonfinite=True)  # so that the message names the number
    except ValueError as error:
        raise ValueError(f"the last line of stdout is not a JSON object: {last[:80]!r} ({error})") from None
    if not isinstance(read, dict):
        raise ValueError(f"the last line of stdout is not a JSON object: {last[:80]!r}")
    if len(read) > MOST_NUMBERS:
        raise ValueError(f"the last line of stdout has {len(read)} numbers, more than {MOST_NUMBERS}")
    for name, value in read.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise ValueError(f"{name[:80]!r} is not a finite number: {json.dumps(value)[:80]}")
    return {name: float(value) for name, value in read.items()}


def limit(timeout: float, stopping: Callable[[], bool]) -> Callable[[float], str]:
    """A `stop` function for `run_command`: stops after `timeout` seconds, or when the run must stop."""

    def stop(seconds: float) -> str:
        if stopping():
            return "stopped because the run stops"
        return f"not finished after {format_duration(timeout)}" if seconds >= timeout else ""

    return stop


def run_eval_command(job: RunningJob, stopping: Callable[[], bool]) -> None:
    """Run the user's eval command, at most once per step, and log its numbers. If it fails, training continues."""
    command = job.options.eval_command
    if command is None or job.eval_command_step == job.done or stopping():
        return
    job.eval_command_step = job.done
    tokens = job.done * tokens_per_step(job.context.config)
    seconds = job.options.eval_timeout or TIMEOUT
    with job.pending.outside_window(), job.context.moves.working():
        result = run_command(command, job.directory.root, job.done, tokens, limit(seconds, stopping))
    if result.problem and stopping():
        job.directory.event("eval command stopped", step=job.done, seconds=result.seconds)
        job.log(f"step {job.done}: the eval command was stopped; --resume runs it again")
        return
    if result.problem:
        job.directory.event("eval command failed", step=job.done, message=result.problem, seconds=result.seconds)
        job.log(f"step {job.done}: the eval command failed ({result.problem}); training continues")
        return
    job.directory.event("eval command", step=job.done, numbers=result.numbers, seconds=result.seconds)
    job.log(f"step {job.done}: {', '.join(f'{name} {format_number(value)}' for name, value in result.numbers.items())}")
    if job.trackers is not None:
        job.trackers.log({"step": job.done} | {f"eval/{name}": value for name, value in result.numbers.items()})
