"""Results go to stdout, everything else to stderr."""

from __future__ import annotations

import os
import sys
from typing import Any

from gptplan.standard_streams import silence, unguarded
from planner.errors import FileError
from planner.printable import printable


def show(text: str) -> None:
    """A result, on stdout, without what a terminal would execute.

    Raises FileError when it cannot be written, such as to a full disk.
    """
    if sys.stdout is None:  # closed by the shell: `>&-`
        raise FileError("the result cannot be written to stdout", why="stdout is closed", remedy="send it to a file")
    stream = unguarded(sys.stdout)
    try:
        stream.write(printable(text) + "\n")
        stream.flush()
    except BrokenPipeError:
        # the reader left, as `head` does; Typer would exit with 1, which here means that a check failed
        silence(stream)
        sys.exit(0)
    except OSError as error:
        why = error.strerror or str(error)
        silence(stream)
        raise FileError("the result cannot be written to stdout", why=why, remedy="check where it goes") from None


def show_if_possible(text: str) -> None:
    """A result that also lies on the disk, on stdout. Where that cannot be written, stderr says so."""
    try:
        show(text)
    except FileError as error:
        log_line(error.message())
    except SystemExit:  # the reader left: the exit code is still that of the run
        pass


def columns() -> int:
    """Columns for text on stdout: the terminal's width, from 60 to 110; 110 for a file or a pipe."""
    from planner.report.text import WIDTH

    try:
        return max(60, min(WIDTH, os.get_terminal_size(sys.stdout.fileno()).columns))
    except (AttributeError, OSError, ValueError):  # closed, or no terminal
        return WIDTH


def show_json(value: Any) -> None:
    """A result as one JSON object on stdout. Numbers that are not finite must be None already."""
    show(json_text(value))


def json_text(value: Any) -> str:
    """A result as JSON, in ASCII: the same bytes whatever the terminal's encoding is. Refuses numbers not finite."""
    import json

    return json.dumps(value, indent=2, allow_nan=False)


def log_line(text: str) -> None:
    """A message on stderr, without what a terminal would execute."""
    sys.stderr.write(printable(text) + "\n")
    sys.stderr.flush()
