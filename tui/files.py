"""Which files the planner may read and write: all of the user's; from a browser those below its directory."""

from __future__ import annotations

import os
from pathlib import Path

from planner.errors import FileError


def is_served() -> bool:
    """Whether this process draws for a browser, as `gptplan tui --serve` starts it."""
    return os.environ.get("TEXTUAL_DRIVER", "").endswith("web_driver:WebDriver")


def file_named(text: str) -> Path:
    """The file of a typed name. Raises FileError for one that the browser may not name.

    From a browser only ordinary files below the present directory: no absolute name, no way out, also not by a link.
    """
    path = Path(os.path.expanduser(text))
    if not is_served():
        return path
    here = Path.cwd().resolve()
    try:
        found = (here / path).resolve()
        odd = found.exists() and not (found.is_file() or found.is_dir())  # a pipe would never end
    except (OSError, RuntimeError, ValueError):  # a name that is too long, links in a ring, a zero byte
        odd, found = True, here
    if odd or not found.is_relative_to(here):
        raise FileError(
            f"{text} cannot be used from a browser",
            why="files there are those below the directory in which gptplan tui --serve was started",
            remedy="give a name such as run.toml",
        )
    return path
