"""Rows of the logs: what is no row is skipped and counted, whoever wrote it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from planner.runs.rows import EVENTS, LONGEST_LINE, METRICS, Rows

BAD = [
    b"{",
    b"[]",
    b"7",
    b'{"loss": 1}',
    b'{"step": "1"}',
    b'{"step": true}',
    b'{"step": -1}',
    b'{"step": 1, "loss": NaN}',
    b'{"step": 1, "loss": 1e999}',
    b'{"step": 1, "step": 2}',
    b'{"step": 1, "tokens": 1' + b"0" * 5000 + b"}",
    b'{"step": 1, "x": ' + b"[" * 5000 + b"]" * 5000 + b"}",
    b'{"step": 1, "x": "\xff"}',
    b'{"step": 1, "lr": "no"}',
    b"\0" * 100,
]


@pytest.mark.parametrize("line", BAD, ids=range(len(BAD)))
def test_a_line_that_is_no_row_is_skipped_and_counted(line: bytes) -> None:
    rows, good = Rows(METRICS), b'{"step": 3, "loss": null, "extra": [1]}'
    assert list(rows.of([line, b"", b"  ", good])) == [json.loads(good)]
    assert rows.skipped == 1


def test_an_endless_line_is_read_in_pieces_and_counts_once(tmp_path: Path) -> None:
    path = tmp_path / EVENTS
    with path.open("wb") as file:
        file.write(b'{"step": 1, "event": "start"}\n')
        file.truncate(3 * LONGEST_LINE)
        file.seek(0, 2)
        file.write(b'\n{"step": 2, "event": "stopped"}\r\n{"step": 3, "event": 7}\n{"step": 4, "event": "x"}')
    rows = Rows(EVENTS)
    assert [row["step"] for row in rows.read(path)] == [1, 2, 4]
    assert rows.skipped == 2
