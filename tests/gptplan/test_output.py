"""The width of the output: the terminal's within limits, 110 columns for a file or a pipe."""

from __future__ import annotations

import os

import pytest

from gptplan.output import columns
from planner.report.text import WIDTH
from tests.gptplan.calling import BASE, Call


@pytest.mark.parametrize("terminal, width", [(80, 80), (20, 60), (300, WIDTH), (None, WIDTH)])
def test_a_terminal_gives_its_width_within_reason(
    call: Call, monkeypatch: pytest.MonkeyPatch, terminal: int | None, width: int
) -> None:
    def size(handle: int) -> os.terminal_size:
        if terminal is None:
            raise OSError("not a terminal")
        return os.terminal_size((terminal, 40))

    monkeypatch.setattr(os, "get_terminal_size", size)
    monkeypatch.setattr("sys.stdout.fileno", lambda: 1, raising=False)
    assert columns() == width
    longest = max(len(line) for line in call("estimate", *BASE).out.splitlines())
    assert longest <= width or width == 60  # the widest table
    assert longest > width - 30
