"""A small real terminal without colour: 60 by 20, NO_COLOR, no COLORTERM; the state is said in words."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios


def test_a_small_terminal_without_colour():
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 20, 60, 0, 0))
    left = {k: v for k, v in os.environ.items() if k not in ("COLORTERM", "COLUMNS", "LINES")}
    with subprocess.Popen(
        [sys.executable, "-m", "gptplan", "tui"],
        stdin=theirs, stdout=theirs, stderr=theirs, env={**left, "TERM": "xterm-256color", "NO_COLOR": "1"},
        start_new_session=True,
    ) as process:  # fmt: skip
        os.close(theirs)
        seen = b""
        while b"tokens/s" not in seen:
            seen += os.read(ours, 65536)
        os.write(ours, b"x")
        while b"Last valid" not in seen:
            seen += os.read(ours, 65536)
        shown = seen  # leaving, Textual puts the cursor below its screen
        os.write(ours, b"\x11")
        try:
            while piece := os.read(ours, 65536):
                seen += piece
        except OSError:  # Linux: the other side is closed
            pass
        assert process.wait(timeout=30) == 0
    os.close(ours)
    assert "✓ fits" in seen.decode() and "✗ parameters" in seen.decode()
    for colour in re.findall(rb"[34]8;2;(\d+;\d+;\d+)", seen):
        assert len(set(colour.split(b";"))) == 1, colour  # greys
    for row, column in re.findall(rb"\x1b\[(\d+);(\d+)H", shown):
        assert int(row) <= 20 and int(column) <= 61
