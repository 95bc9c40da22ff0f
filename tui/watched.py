"""The run that is watched: what is read of it at each look. No terminal in here."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

from planner.errors import PlanError
from planner.files import read_text, write_atomically
from planner.runs.directory import is_run, log_lines, log_of, owner_of, resident_bytes, runs_in
from planner.runs.progress import Record, RunFigure, RunStage, run_figures, stage

RECENT = 20  # runs that are remembered


def recent_file() -> Path:
    """Where the runs that were watched are remembered, in the user's cache."""
    from platformdirs import user_cache_dir

    return Path(user_cache_dir("gptplan")) / "recent-runs.txt"


def known_runs() -> tuple[Path, ...]:
    """Runs below this directory, the latest first, then those that were watched from elsewhere."""
    here = runs_in(Path())
    found = {run.absolute() for run in here}
    return (*here, *(run for run in _remembered() if run not in found and is_run(run)))


def remember(directory: Path) -> None:
    """Put a run before the others that were watched; where the cache cannot be written, it is not remembered."""
    first = directory.absolute()
    lines = [str(run) for run in (first, *(r for r in _remembered() if r != first)) if "\n" not in str(run)]
    try:
        recent_file().parent.mkdir(parents=True, exist_ok=True)
        write_atomically(recent_file(), "\n".join(lines[:RECENT]) + "\n", overwrite=True)
    except (OSError, PlanError):
        pass


def _remembered() -> list[Path]:
    try:
        return [Path(line) for line in read_text(recent_file()).splitlines() if line]
    except PlanError:
        return []


@dataclass(frozen=True, slots=True)
class Seen:
    """One look: where the run stands, its numbers, the last lines of its log; process: that works on it now."""

    stage: RunStage
    record: Record
    figures: tuple[RunFigure, ...]
    log: tuple[str, ...]
    process: int | None
    code: int | None


class Watched:
    """A run directory, and the process where it was started from here. `asked`: it was told to stop."""

    def __init__(self, directory: Path, process: subprocess.Popen[bytes] | None = None) -> None:
        self.directory, self.process, self.asked = directory, process, False
        self.record = Record(directory)

    def process_now(self) -> int | None:
        """The process that works on the run at this moment."""
        if self.process is not None and self.process.poll() is None:
            return self.process.pid
        return owner_of(self.directory)

    def look(self) -> Seen:
        """Read what is new. The end is asked for before the files, so that none of its last words are missed."""
        code = None if self.process is None else self.process.poll()
        alive = None if self.process is None else code is None
        owner = owner_of(self.directory)
        working = self.process.pid if self.process is not None and alive else owner
        self.record.read_on()
        found = stage(self.record, owned=owner is not None, alive=alive, code=code, asked=self.asked)
        resident = None if working is None else resident_bytes(working)
        log = tuple(log_lines(log_of(self.directory)))
        return Seen(found, self.record, run_figures(self.record, resident), log, working, code)
