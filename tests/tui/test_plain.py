"""A small real terminal without colour: 60 by 20, NO_COLOR, no COLORTERM; the state is shown in words."""

from __future__ import annotations

import os
import re
import sys

from tests.processes import at_terminal


def test_a_small_terminal_without_colour():
    left = {k: v for k, v in os.environ.items() if k not in ("COLORTERM", "COLUMNS", "LINES")}
    env = {**left, "TERM": "xterm-256color", "NO_COLOR": "1"}
    with at_terminal([sys.executable, "-m", "gptplan", "tui"], rows=20, columns=60, env=env) as terminal:
        terminal.until(b"tokens/s")
        terminal.type(b"x")
        terminal.until(b"Last valid")
        shown = terminal.seen  # leaving, Textual puts the cursor below its screen
        terminal.type(b"\x11")
        assert terminal.rest() == 0
    seen = terminal.seen
    assert "✓ fits" in seen.decode() and "✗ parameters" in seen.decode()
    for colour in re.findall(rb"[34]8;2;(\d+;\d+;\d+)", seen):
        assert len(set(colour.split(b";"))) == 1, colour  # greys
    for row, column in re.findall(rb"\x1b\[(\d+);(\d+)H", shown):
        assert int(row) <= 20 and int(column) <= 61
