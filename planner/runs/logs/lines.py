"""Lines of a log that anybody may have written: bounded, without colours, progress bars in lines of their own."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from planner.errors import FileError
from planner.files import open_ordinary

MOST_LOG = 4 << 30  # bytes of a log
LONGEST_LOG_LINE = 1 << 16  # bytes; what is longer is no line of a step, and is passed over
_CHUNK = 1 << 20
_COLOUR = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
_END = re.compile(rb"[\r\n]")  # a progress bar goes back to the start of its line with \r


def log_text_lines(path: Path) -> Iterator[str]:
    """The lines of a log, without what colours them; bytes that are not UTF-8 are replaced.

    Raises FileError for a path that cannot be read, more than `MOST_LOG` bytes, and zero bytes, which no text has.
    """
    rest, skipping, size = b"", False, 0
    try:
        with open_ordinary(path) as file:
            while chunk := file.read(_CHUNK):
                size += len(chunk)
                _refuse(path, chunk, size)
                *ended, rest = _END.split(rest + chunk)
                for line in ended:
                    if not skipping and len(line) <= LONGEST_LOG_LINE:
                        yield _clean(line)
                    skipping = False
                if len(rest) > LONGEST_LOG_LINE:
                    rest, skipping = b"", True
    except (OSError, ValueError) as error:  # ValueError: a zero byte in its name
        why = getattr(error, "strerror", None) or str(error)
        raise FileError(f"{path} cannot be read", why=why, remedy="give the log of a run") from None
    if rest and not skipping:
        yield _clean(rest)


def _refuse(path: Path, chunk: bytes, size: int) -> None:
    if b"\0" in chunk:
        raise FileError(f"{path} is not text", why="it has zero bytes", remedy="give what the trainer printed")
    if size > MOST_LOG:
        why = f"it has more than {MOST_LOG >> 30} GiB"
        raise FileError(f"{path} is too large", why=why, remedy="give the lines of its steps: grep -i step LOG")


def _clean(line: bytes) -> str:
    return _COLOUR.sub("", line.decode("utf-8", errors="replace"))
