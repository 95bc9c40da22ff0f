"""metrics.jsonl: one line per optimizer step, appended whole or not at all, kept in memory while the disk refuses."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from planner.errors import FileError
from planner.runs.directory import objects

MetricValue = float | int | bool | str | None


class MetricsFile:
    """Rows of steps on their way to the file. It is opened for each writing: who deletes it loses no later row."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._pending: list[str] = []
        self.refused = ""

    def add(self, row: Mapping[str, MetricValue]) -> None:
        """A row for the next `write`."""
        self._pending.append(json.dumps(row, allow_nan=False) + "\n")

    def write(self) -> str:
        """Append what is pending; where the disk refuses it stays pending, and the reason is returned."""
        return append_whole(self.path, self._pending)

    def sync(self) -> None:
        """Write, and wait until all rows are on the disk: no checkpoint may know of a step that the metrics do not.

        Raises FileError where the disk refuses.
        """
        refused = self.write()
        try:
            if not refused and self.path.exists():
                with self.path.open("ab") as file:
                    os.fsync(file.fileno())
        except OSError as error:
            refused = str(error)
        if refused:
            raise FileError(
                f"cannot write to {self.path}",
                why=refused,
                remedy="free space or mend the permissions, then continue with --resume: the last checkpoint is whole",
            )

    def forget_pending(self) -> None:
        """Drop rows that are not written yet: a rollback unmade their steps."""
        self._pending.clear()


def append_whole(path: Path, lines: list[str]) -> str:
    """Append the lines and empty the list; where the disk refuses, nothing is written and the reason is returned."""
    if not lines:
        return ""
    try:
        with path.open("ab") as file:
            size = file.tell()
            try:
                file.write("".join(lines).encode())
                file.flush()
            except OSError:
                file.truncate(size)  # half a row would spoil the next one
                raise
    except OSError as error:
        return str(error)
    lines.clear()
    return ""


def read_rows(path: Path) -> Iterator[dict[str, Any]]:
    """The objects of a file of JSON lines, in order; a line that is none, torn by a crash, is passed over."""
    if not path.exists():
        return
    with path.open(encoding="utf-8", errors="replace") as file:
        yield from objects(file)
