"""The trainer as a process of its own: started, signalled, waited for. It outlives the planner."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from planner.config.run import RunConfig
from planner.errors import FileError, PlanError
from planner.files import read_text
from planner.inputs.run_toml import file_text, write_config
from planner.own_files import open_own
from planner.paths import exists, is_folder
from planner.runs.directory import COMMAND, beside, catches, log_of, owner_of
from planner.units import parse_count, parse_duration
from tui.files import file_named

PROGRAM = (sys.executable, "-m", "gptplan")
_ours: list[subprocess.Popen[bytes]] = []  # kept, so that a detached one leaves no zombie while the planner runs


@dataclass(frozen=True, slots=True)
class StartRequest:
    """The fields of the start dialog; empty text is the default."""

    directory: Path
    data: str = ""
    steps: str = ""
    time_limit: str = ""


def start_run(request: StartRequest, config: RunConfig, program: tuple[str, ...] = PROGRAM) -> subprocess.Popen[bytes]:
    """Write the config beside the run directory and train it. Raises PlanError, before anything is started."""
    out = request.directory
    if request.steps:
        parse_count(request.steps, name="steps")
    if request.time_limit:
        parse_duration(request.time_limit, name="time limit")
    data = file_named(request.data) if request.data else None
    if data is not None and not exists(data):
        raise FileError(f"the data {request.data} does not exist", remedy="check the path, or leave it empty")
    if exists(out) and (not is_folder(out) or any(out.iterdir())):
        raise FileError(f"{out} is not empty", why="nothing is overwritten or mixed", remedy="give another directory")
    file = beside(out, ".toml")
    text = file_text(config, file)
    if not exists(file) or read_text(file) != text:
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise FileError(
                f"{file.parent} cannot be created", why=str(error), remedy="give another directory"
            ) from None
        write_config(file, config)
    options = ["--data", str(data)] if data is not None else []
    options += ["--steps", request.steps] if request.steps else []
    options += ["--time-limit", request.time_limit] if request.time_limit else []
    return _started([*program, "run", str(file), "--out", str(out), *options], out)


def resume_run(directory: Path, program: tuple[str, ...] = PROGRAM) -> subprocess.Popen[bytes]:
    """Continue a run from its last checkpoint. Raises FileError where it cannot be started."""
    owner = owner_of(directory)
    if owner is not None:
        raise FileError(f"{directory} is running", why=f"process {owner} holds its lock", remedy="stop it first")
    return _started([*program, "run", "--resume", str(directory)], directory)


def _started(command: list[str], directory: Path) -> subprocess.Popen[bytes]:
    try:
        # a link in its place would be written through
        handle = open_own(log_of(directory), os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        with os.fdopen(handle, "ab") as log:
            log.write(f"{COMMAND}{shlex.join(command)}\n".encode())
            log.flush()
            # a session of its own: neither the terminal's keys nor its end reach the run
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
            )
    except OSError as error:
        raise FileError(
            f"the trainer cannot be started with the log {log_of(directory)}",
            why=str(error),
            remedy="give a directory that can be written",
        ) from None
    _ours[:] = [p for p in _ours if p.poll() is None] + [process]
    return process


def send(number: signal.Signals, process: int) -> None:
    """Send a signal to a run. Raises PlanError where it cannot, and for a signal that would kill the run instead."""
    if number == signal.SIGUSR1 and catches(process, number) is not True:
        raise PlanError(
            "the run cannot write a checkpoint now", why="it is not in its training loop", remedy="try again later"
        )
    try:
        os.kill(process, number)
    except OSError as error:
        raise PlanError(f"process {process} cannot be signalled", why=str(error), remedy="it may have ended") from None
