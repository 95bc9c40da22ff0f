"""The directory of a run: its paths, its lock, and its event log.

::

    config.toml      the RunConfig, written by the caller
    metrics.jsonl    one object per optimizer step, each step once
    events.jsonl     what happened when: start, resume, checkpoint, signal, finished …
    checkpoints/     see checkpoint.py
    rollbacks.json   rollbacks after loss spikes, if there were any
    run.lock         locked while a run works here; contains the process id of that run
"""

from __future__ import annotations

import fcntl
import json
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from planner.errors import FileError
from planner.json_input import parsed_json
from planner.own_files import open_own, refuse_link
from planner.runs.directory import CHECKPOINTS, LOCK
from planner.runs.rows import EVENTS, LONGEST_LINE, METRICS
from reference_trainer.metrics.metrics_file import append_whole

_MOST_OF_A_LOCK = 64  # characters read of it: the id of a process has fewer


class RunDirectory:
    """The paths of a run. Its lock is held while the `with` block runs."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.metrics = root / METRICS
        self.events = root / EVENTS
        self.checkpoints = root / CHECKPOINTS
        self.rollbacks = root / "rollbacks.json"
        self.lock = root / LOCK
        self._lock_file: IO[str] | None = None
        self._pending: list[str] = []
        self._begun = False

    def __enter__(self) -> RunDirectory:
        """Make the directory and lock it.

        Raises FileError if another run has the lock, if it cannot be written, or if what a run writes in place is a
        link or somebody's: it would be written elsewhere.
        """
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            _refuse_links(self.checkpoints, self.metrics, self.events)
            file = os.fdopen(open_own(self.lock, os.O_RDWR | os.O_CREAT), "r+", encoding="utf-8", errors="replace")
        except OSError as error:
            raise FileError(
                f"cannot write to the run directory {self.root}",
                why=str(error),
                remedy="choose another with --out",
            ) from error
        try:
            # the kernel releases the lock when the process dies, so a stale lock is impossible
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            owner = file.read().strip() or "unknown"
            file.close()
            raise FileError(
                f"another run is using {self.root}",
                why=f"process {owner} holds {self.lock.name}",
                remedy="wait for it, stop it, or choose another directory",
            ) from error
        except OSError as error:
            file.close()
            raise FileError(
                f"{self.lock} cannot be locked", why=str(error), remedy="choose a directory on a local disk with --out"
            ) from error
        file.seek(0)
        owner = file.read(_MOST_OF_A_LOCK).strip()
        if owner and not owner.isdecimal():
            file.close()
            raise FileError(
                f"{self.lock} is not the lock of a run",
                why="it holds other text than the id of a process, which would be overwritten",
                remedy="take it away, or choose another directory",
            )
        try:
            file.seek(0)
            file.truncate(0)
            file.write(f"{os.getpid()}\n")
            file.flush()
        except OSError as error:
            with suppress(OSError):  # what the full disk refused is tried again when the file is closed
                file.close()
            raise FileError(
                f"cannot write to the run directory {self.root}", why=str(error), remedy="free space, then try again"
            ) from error
        self._lock_file = file
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        assert self._lock_file is not None, "the directory was entered"
        self._lock_file.truncate(0)
        self._lock_file.close()

    def event(self, name: str, **facts: object) -> None:
        """Append an event with its time (UTC) to events.jsonl.

        Raises FileError if the disk fails at the first event of this call. A later event is kept and written with the
        next one: a full disk for logs does not stop training.
        """
        time = datetime.now(UTC).isoformat(timespec="milliseconds")
        self._pending.append(json.dumps({"time": time, "event": name} | facts) + "\n")
        refused = append_whole(self.events, self._pending)
        if refused and not self._begun:
            with file_error_of(self.events):
                raise OSError(refused)
        self._begun = True

    def forget_after(self, step: int) -> None:
        """Drop the rows after `step` from metrics.jsonl, and lines cut short by a crash from both logs."""
        with file_error_of(self.root):
            keep_lines(self.metrics, last_step=step)
            keep_lines(self.events, last_step=None)


class FollowedDirectory(RunDirectory):
    """The paths of a run, for a rank that leaves the lock and both logs to the first."""

    def __enter__(self) -> RunDirectory:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        return

    def event(self, name: str, **facts: object) -> None:
        """Nothing: the first rank has the same event."""

    def forget_after(self, step: int) -> None:
        """Nothing: the first rank does."""


def keep_lines(path: Path, last_step: int | None) -> None:
    """Rewrite a JSONL file atomically, without broken lines and lines whose step is above `last_step`."""

    def change(row: dict[str, Any], line: str) -> str | None:
        step = row.get("step")
        return None if last_step is not None and isinstance(step, int) and step > last_step else line

    rewrite_lines(path, change)


def rewrite_lines(path: Path, change: Callable[[dict[str, Any], str], str | None]) -> None:
    """Rewrite a JSONL file atomically: each line as `change(object, line)` says, None to drop it. Broken lines go."""
    if not os.path.lexists(path):
        return
    with os.fdopen(open_own(path, os.O_RDONLY), encoding="utf-8", errors="replace") as old:
        handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)  # a new name: nobody's link
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as new:
                while line := old.readline(LONGEST_LINE + 1):  # what is longer comes in pieces, which are no objects
                    row = _object(line)
                    changed = None if row is None else change(row, line)
                    if changed is not None:
                        new.write(changed)
                new.flush()
                os.fsync(new.fileno())
            os.chmod(temporary, os.fstat(old.fileno()).st_mode & 0o777)
            os.replace(temporary, path)
        except BaseException:
            os.unlink(temporary)
            raise


def _refuse_links(folder: Path, *files: Path) -> None:
    """Raises OSError for a link in the place of what a run writes into, and for a file that is none."""
    refuse_link(folder)
    for file in files:
        if os.path.lexists(file):
            os.close(open_own(file, os.O_RDONLY))


def _object(line: str) -> dict[str, Any] | None:
    """The JSON object in a complete line, or None. A row that no schema knows is kept: it is not ours to lose."""
    try:
        read = parsed_json(line, allow_nonfinite=True) if line.endswith("\n") and len(line) <= LONGEST_LINE else None
    except ValueError:
        return None
    return read if isinstance(read, dict) else None


@contextmanager
def file_error_of(path: Path) -> Iterator[None]:
    """Turns an OSError of writing `path` into a FileError."""
    try:
        yield
    except OSError as error:
        raise FileError(
            f"cannot write to {path}",
            why=str(error),
            remedy="free space or correct the permissions, then resume from the last checkpoint with --resume",
        ) from error
