"""The watched run, and its status read from its files. No terminal in here."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

from planner.errors import PlanError
from planner.files import read_text, write_atomically
from planner.runs.directory import is_run, log_lines, log_of, owner_of, resident_bytes, runs_in
from planner.runs.progress import Record, RunFigure, RunStage, run_figures, stage

_MOST_REMEMBERED = 20  # runs in the list


def recent_file() -> Path:
    """The list of watched runs, in the user's cache."""
    from platformdirs import user_cache_dir

    return Path(user_cache_dir("gptplan")) / "recent-runs.txt"


def known_runs() -> tuple[Path, ...]:
    """Runs below this directory, the latest first, then watched runs elsewhere."""
    here = runs_in(Path())
    found = {run.absolute() for run in here}
    return (*here, *(run for run in _remembered() if run not in found and is_run(run)))


def remember(directory: Path) -> None:
    """Put a run first in the list of watched runs; a cache that cannot be written is left alone."""
    first = directory.absolute()
    lines = [str(run) for run in (first, *(r for r in _remembered() if r != first)) if "\n" not in str(run)]
    try:
        recent_file().parent.mkdir(parents=True, exist_ok=True)
        write_atomically(recent_file(), "\n".join(lines[:_MOST_REMEMBERED]) + "\n", overwrite=True)
    except (OSError, PlanError):
        pass


def _remembered() -> list[Path]:
    try:
        return [Path(line) for line in read_text(recent_file()).splitlines() if line]
    except PlanError:
        return []


@dataclass(frozen=True, slots=True)
class RunStatus:
    """The stage of a run, its numbers, the last lines of its log; process: the one that trains it now."""

    stage: RunStage
    record: Record
    figures: tuple[RunFigure, ...]
    log: tuple[str, ...]
    process: int | None
    code: int | None


class WatchedRun:
    """A run directory, and its process if the planner started it; stop_requested: it was asked to stop."""

    def __init__(self, directory: Path, process: subprocess.Popen[bytes] | None = None) -> None:
        self.directory, self.process, self.stop_requested = directory, process, False
        self.record = Record(directory)

    def process_now(self) -> int | None:
        """The process that trains the run now."""
        if self.process is not None and self.process.poll() is None:
            return self.process.pid
        return owner_of(self.directory)

    def read_status(self) -> RunStatus:
        """Read the new lines of its files. Whether it ended is asked first, so that no last line is missed."""
        code = None if self.process is None else self.process.poll()
        alive = None if self.process is None else code is None
        owner = owner_of(self.directory)
        working = self.process.pid if self.process is not None and alive else owner
        self.record.read_on()
        found = stage(self.record, owned=owner is not None, alive=alive, code=code, asked=self.stop_requested)
        resident = None if working is None else resident_bytes(working)
        log = tuple(log_lines(log_of(self.directory)))
        return RunStatus(found, self.record, run_figures(self.record, resident), log, working, code)
