"""Text read and files written: whole or not at all, with one message where that is not possible."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from planner.errors import FileError, nearest


def read_text(path: Path) -> str:
    """The text of a file.

    Raises FileError for a missing path, a directory, something unreadable, or bytes that are not UTF-8.
    """
    try:
        return path.read_text(encoding="utf-8-sig")  # some editors put a byte order mark first
    except FileNotFoundError:
        try:
            close = nearest(path.name, os.listdir(path.parent))
        except OSError:
            close = []
        hint = f"did you mean {' or '.join(close)}? " if close else ""
        raise FileError(f"{path} does not exist", remedy=f"{hint}check the path") from None
    except IsADirectoryError:
        raise FileError(f"{path} is a directory", why="a file is needed here", remedy="name the file in it") from None
    except UnicodeDecodeError:  # before ValueError, of which it is one
        raise FileError(f"{path} is not text", why="it is not UTF-8", remedy="give a text file") from None
    except (OSError, ValueError) as error:  # ValueError: a zero byte in its name
        why = getattr(error, "strerror", None) or str(error)
        raise FileError(f"{path} cannot be read", why=why, remedy="check it") from None


def refuse_existing(path: Path) -> None:
    """Raises FileError when the path is a directory, or is there already."""
    if os.path.isdir(path):  # Path.is_dir raises for a name that is too long
        raise FileError(f"{path} is a directory", why="a file is needed here", remedy="give a file name")
    if os.path.lexists(path):  # a link to nowhere is somebody's, too
        raise FileError(
            f"{path} exists already", why="nothing is overwritten unasked", remedy="give another name, or add --force"
        )


def write_atomically(path: Path, content: str | bytes, *, overwrite: bool = False) -> None:
    """Write a whole file or nothing: a temporary file beside it, flushed to disk, then renamed.

    Raises FileError when the path exists already (unless `overwrite`), is a directory, or cannot be written.
    """
    if not overwrite or os.path.isdir(path):
        refuse_existing(path)
    try:
        handle, name = tempfile.mkstemp(prefix=f".{path.name[:40]}.", dir=path.parent)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(content.encode(errors="replace") if isinstance(content, str) else content)
                file.flush()
                os.fsync(file.fileno())
            umask = os.umask(0)
            os.umask(umask)
            Path(name).chmod(0o666 & ~umask)  # mkstemp's 0600 is for secrets
            os.replace(name, path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
    except (OSError, ValueError) as error:  # ValueError: a zero byte in its name
        raise FileError(
            f"{path} cannot be written",
            why=getattr(error, "strerror", None) or str(error),
            remedy="check that its directory exists, is writable and has room",
        ) from None
