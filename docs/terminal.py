"""The generated parts of terminal.md: the planner's keys and tabs, and a sitting with the wizard."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib import import_module

from docs.shell import ROOT, console


def keys() -> str:
    """Every key of the terminal planner."""
    from tui.actions import ACTIONS

    rows = [f"| {a.spelled()} | {a.title} | {a.sentence} |" for a in ACTIONS]
    return "\n".join(["| key | name | what it does |", "|---|---|---|", *rows])


def tabs() -> str:
    """The tabs, each with the sentence of its module."""
    from tui.panes import PANES

    rows = [f"- {(import_module(kind.module).__doc__ or '').splitlines()[0]}" for kind in PANES]
    return "\n".join(rows)


def wizard() -> str:
    """The first questions, answered by three lines."""
    done = subprocess.run(
        [sys.executable, "-m", "gptplan", "wizard"],
        cwd=ROOT,
        env={"NO_COLOR": "1", "LC_ALL": "C.UTF-8", "PATH": ""},
        input="gpt2\n20 bananas\n20B\n",
        capture_output=True,
        encoding="utf-8",
        timeout=120,
        check=False,  # the answers end early
    )
    shown = re.sub(r"(\]: )(?=\S)", r"\1\n", done.stderr)  # nobody pressed Enter here
    first = shown.partition("\nTokens per sequence")[0]
    answered = iter(("gpt2", "20 bananas", "20B"))
    lines = [line + next(answered) if line.endswith("]: ") else line for line in first.splitlines()]
    return console("$ gptplan wizard", *(line.rstrip() for line in lines), "", "…")
