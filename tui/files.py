"""The files that the planner may use: those of the user; from a browser those below its directory."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from planner.errors import FileError
from planner.paths import exists, is_file, is_folder


def is_served() -> bool:
    """Whether this process draws for a browser, as `gptplan tui --serve` starts it."""
    return os.environ.get("TEXTUAL_DRIVER", "").endswith("web_driver:WebDriver")


def file_named(text: str) -> Path:
    """The file of a typed name. Raises FileError for one that is no name, or that a browser may not use.

    From a browser only ordinary files below the present directory: no absolute name, no way out, also not by a link.
    """
    if "\0" in text:  # pasted: no file has such a name, and each function of the system says so in its own way
        raise FileError(f"{text} is not the name of a file", why="there is a zero byte in it", remedy="type it again")
    path = Path(os.path.expanduser(text))
    if not is_served():
        return path
    here = Path.cwd().resolve()
    try:
        found = (here / path).resolve()
        with suppress(FileNotFoundError):
            os.stat(found)  # a name that is too long is an error; a new one is not
        special = exists(found) and not (is_file(found) or is_folder(found))  # a pipe would never end
    except (OSError, RuntimeError, ValueError):  # a name that is too long, links in a ring, a zero byte
        special, found = True, here
    if special or not found.is_relative_to(here):
        raise FileError(
            f"{text} cannot be used from a browser",
            why="a browser may use files below the directory in which gptplan tui --serve was started",
            remedy="give a name such as run.toml",
        )
    return path
