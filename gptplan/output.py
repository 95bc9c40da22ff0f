"""Results go to stdout, everything else to stderr."""

from __future__ import annotations

import os
import sys
from typing import Any

from planner.errors import FileError


def show(text: str) -> None:
    """A result, on stdout. Raises FileError when it cannot be written, such as to a full disk."""
    if sys.stdout is None:  # closed by the shell: `>&-`
        raise FileError("the result cannot be written to stdout", why="stdout is closed", remedy="send it to a file")
    try:
        sys.stdout.write(text + "\n")
        sys.stdout.flush()
    except BrokenPipeError:
        # the reader left, as `head` does; Typer would exit with 1, which here means that a check failed
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except OSError as error:
        why = error.strerror or str(error)
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else Python tries again at its exit
        raise FileError("the result cannot be written to stdout", why=why, remedy="check where it goes") from None


def columns() -> int:
    """Columns for text on stdout: the terminal's width, from 60 to 110; 110 for a file or a pipe."""
    from planner.report.text import WIDTH

    try:
        return max(60, min(WIDTH, os.get_terminal_size(sys.stdout.fileno()).columns))
    except (AttributeError, OSError, ValueError):  # closed, or no terminal
        return WIDTH


def show_json(value: Any) -> None:
    """A result as one JSON object on stdout. Numbers that are not finite must be None already."""
    import json

    show(json.dumps(value, indent=2, allow_nan=False))  # ASCII: the same bytes whatever the terminal's encoding is


def log_line(text: str) -> None:
    """A message on stderr."""
    sys.stderr.write(text + "\n")
    sys.stderr.flush()
