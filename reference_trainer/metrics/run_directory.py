"""The directory of a run: what lies where, who holds it, and the lines written to it.

::

    config.toml      the RunConfig, written by the caller
    metrics.jsonl    one object per optimizer step, each step once
    events.jsonl     what happened when: start, resume, checkpoint, signal, finished …
    checkpoints/     see checkpoint.py
    rollbacks.json   the rollbacks after loss spikes, where there were any
    run.lock         held by the run that works here; its text is that run's process id
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from planner.errors import FileError
from planner.runs.directory import EVENTS, LOCK, METRICS, objects
from reference_trainer.metrics.metrics_file import append_whole


class RunDirectory:
    """The paths of a run, and the lock on them for as long as the `with` block lasts."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.metrics = root / METRICS
        self.events = root / EVENTS
        self.checkpoints = root / "checkpoints"
        self.rollbacks = root / "rollbacks.json"
        self.lock = root / LOCK
        self._held: IO[str] | None = None
        self._pending: list[str] = []
        self._begun = False

    def __enter__(self) -> RunDirectory:
        """Make the directory and take its lock. Raises FileError if another run has it, or it cannot be written."""
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            held = self.lock.open("a+", encoding="utf-8")
        except OSError as error:
            raise FileError(
                f"cannot write to the run directory {self.root}",
                why=str(error),
                remedy="choose another with --out",
            ) from error
        try:
            # the kernel gives the lock back when its process dies, so that a stale one cannot be
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            held.seek(0)
            owner = held.read().strip() or "unknown"
            held.close()
            raise FileError(
                f"another run works in {self.root}",
                why=f"process {owner} holds {self.lock.name}",
                remedy="wait for it, stop it, or choose another directory",
            ) from error
        except OSError as error:
            held.close()
            raise FileError(
                f"{self.lock} cannot be locked", why=str(error), remedy="choose a directory on a local disk with --out"
            ) from error
        held.truncate(0)
        held.write(f"{os.getpid()}\n")
        held.flush()
        self._held = held
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        assert self._held is not None, "the directory was entered"
        self._held.truncate(0)
        self._held.close()

    def holds_a_run(self) -> bool:
        """Whether a run has begun here."""
        return any(path.exists() for path in (self.metrics, self.events, self.checkpoints))

    def event(self, name: str, **facts: object) -> None:
        """Append what happened, and when (UTC), to events.jsonl.

        Raises FileError where the disk refuses the first event of this call. A later one is kept, and written with the
        next: a full disk for logs is no reason to stop training.
        """
        time = datetime.now(UTC).isoformat(timespec="milliseconds")
        self._pending.append(json.dumps({"time": time, "event": name} | facts) + "\n")
        refused = append_whole(self.events, self._pending)
        if refused and not self._begun:
            with _writing(self.events):
                raise OSError(refused)
        self._begun = True

    def forget_after(self, step: int) -> None:
        """Drop from metrics.jsonl what lies after `step`, and from both logs a last line cut short by a crash."""
        with _writing(self.root):
            keep_lines(self.metrics, last_step=step)
            keep_lines(self.events, last_step=None)


def keep_lines(path: Path, last_step: int | None) -> None:
    """Rewrite a file of JSON lines, atomically, without broken lines and those whose step is above `last_step`."""
    if not path.exists():
        return
    temporary = path.with_name(f".tmp-{path.name}")
    with path.open(encoding="utf-8", errors="replace") as old, temporary.open("w", encoding="utf-8") as new:
        for line in old:
            read = _object(line)
            if read is not None and (last_step is None or read.get("step", 0) <= last_step):
                new.write(line)
        new.flush()
        os.fsync(new.fileno())
    os.replace(temporary, path)


def _object(line: str) -> dict[str, Any] | None:
    """The JSON object in a whole line, or None."""
    return next(objects([line]), None) if line.endswith("\n") else None


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise FileError(
            f"cannot write to {path}",
            why=str(error),
            remedy="free space or mend the permissions, then continue with --resume: the last checkpoint is whole",
        ) from error
