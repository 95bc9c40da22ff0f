"""metrics.jsonl: one line per optimizer step. Lines are appended atomically, and kept in memory if the disk fails."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

from planner.errors import FileError
from planner.own_files import open_own
from planner.paths import exists
from planner.runs.rows import JsonObject, Rows

MetricValue = float | int | bool | str | None


class MetricsFile:
    """Writes rows to metrics.jsonl. Opens the file for each write, so that later rows survive if someone deletes it."""

    def __init__(self, path: Path, writes: bool = True) -> None:
        """writes: False of a rank that leaves the log to the first."""
        self.path, self.writes = path, writes
        self._pending: list[str] = []
        self.refused = ""

    def add(self, row: Mapping[str, MetricValue]) -> None:
        """Keep a row for the next `write`."""
        if not self.writes:
            return
        self._pending.append(json.dumps(row, allow_nan=False) + "\n")

    def write(self) -> str:
        """Append the pending rows. If the disk fails, they stay pending and the reason is returned."""
        return append_whole(self.path, self._pending)

    def sync(self) -> None:
        """Write, and wait until all rows are on the disk: a checkpoint must not be newer than the metrics.

        Raises FileError if the disk fails.
        """
        refused = self.write()
        try:
            if not refused and self.writes and os.path.lexists(self.path):
                with os.fdopen(open_own(self.path, os.O_WRONLY | os.O_APPEND), "ab") as file:
                    os.fsync(file.fileno())
        except OSError as error:
            refused = str(error)
        if refused:
            raise FileError(
                f"cannot write to {self.path}",
                why=refused,
                remedy="free space or correct the permissions, then resume from the last checkpoint with --resume",
            )

    def forget_pending(self) -> None:
        """Drop rows that are not written yet, after a rollback."""
        self._pending.clear()


def append_whole(path: Path, lines: list[str]) -> str:
    """Append the lines and empty the list. If the disk fails, write nothing and return the reason."""
    if not lines:
        return ""
    content = memoryview("".join(lines).encode())
    try:
        # without a buffer: what a full disk refuses must not be written later, when the file is closed
        with os.fdopen(open_own(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT), "ab", buffering=0) as file:
            size = file.tell()
            try:
                while content:  # an almost full disk takes a part, and refuses the next call
                    content = content[file.write(content) :]
            except OSError:
                with suppress(OSError):  # a device has no size
                    file.truncate(size)  # half a row would make the next one unreadable
                raise
    except OSError as error:
        return str(error)
    lines.clear()
    return ""


def read_rows(path: Path, rows: Rows | None = None) -> Iterator[JsonObject]:
    """The rows of metrics.jsonl or events.jsonl, in order; a line that is none, torn by a crash, is passed over.

    rows: counts these lines. Raises FileError for what cannot be read; a missing file has no rows.
    """
    if not exists(path):
        return
    try:
        yield from (Rows(path.name) if rows is None else rows).read(path)
    except OSError as error:
        raise FileError(f"{path} cannot be read", why=error.strerror or str(error), remedy="check it") from None
