"""The run that is watched: what is read of it at each look. No terminal in here."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

from planner.run_files import log_lines, log_of, owner_of, resident_bytes
from planner.run_view import Figure, Record, Stage, figures, stage


@dataclass(frozen=True, slots=True)
class Seen:
    """One look: where the run stands, its numbers, the last lines of its log; process: that works on it now."""

    stage: Stage
    record: Record
    figures: tuple[Figure, ...]
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
        return Seen(found, self.record, figures(self.record, resident), log, working, code)
