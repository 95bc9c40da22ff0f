"""Without a terminal: the first screen as text, one line of explanation, exit code 2."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from planner.inputs.run_toml import config_text
from tests.processes import at_terminal
from tui.session import flags_result

COMMAND = [sys.executable, "-m", "gptplan", "tui"]


def run(*words: str, **options) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*COMMAND, *words], capture_output=True, text=True, timeout=30, check=False, **options)


def test_not_a_terminal():
    done = run(stdin=subprocess.DEVNULL)
    assert done.returncode == 2
    assert "125M parameters, 10B tokens" in done.stdout and "\x1b" not in done.stdout
    assert "needs a terminal" in done.stderr and len(done.stderr.splitlines()) == 1


def test_not_a_terminal_with_a_file(tmp_path, session, small):
    path = tmp_path / "run.toml"
    path.write_text(config_text(flags_result(small, session).plan.config))
    done = run(str(path), stdin=subprocess.DEVNULL)
    assert done.returncode == 2 and "125M parameters, 10B tokens" in done.stdout


def test_a_missing_file_is_a_message():
    done = run("none.toml", stdin=subprocess.DEVNULL)
    assert done.returncode == 2 and done.stdout == ""
    assert "none.toml does not exist" in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize("term", ["dumb", "xterm-256color"])
def test_a_terminal_gets_a_screen_unless_it_is_dumb(term):
    with at_terminal(COMMAND, env={**os.environ, "TERM": term}) as terminal:
        if term != "dumb":
            terminal.until(b"tokens/s")
            terminal.type(b"\x11")  # Ctrl+Q
        code = terminal.rest()
    assert code == (2 if term == "dumb" else 0)
    assert (b"\x1b[?1049h" in terminal.seen) == (term != "dumb")  # the alternate screen
    assert b"fits" in terminal.seen
