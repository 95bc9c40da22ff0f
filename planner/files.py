"""Files read and written: whole or not at all, with one message where that is not possible.

A file that is read may be anybody's. What is no ordinary file is not opened, because a pipe would wait for its other
end and a device may have no end at all; and no more is read than a file of that kind can need.
"""

from __future__ import annotations

import errno
import io
import os
import stat
import tempfile
from pathlib import Path

from planner.errors import FileError, nearest

MOST_BYTES = 4 << 20  # of a file that is read whole: a config or a record has a hundredth of it


def open_ordinary(path: Path) -> io.BufferedReader:
    """An ordinary file, open for reading bytes; links are followed.

    Raises OSError for a pipe, a device or a directory, none of which is waited for, and where the system refuses.
    """
    _refuse_other_kinds(os.stat(path), path)  # first: opening a device may already do something
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        _refuse_other_kinds(os.fstat(handle), path)
        return open(handle, "rb")
    except BaseException:
        os.close(handle)
        raise


def _refuse_other_kinds(found: os.stat_result, path: Path) -> None:
    if stat.S_ISDIR(found.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not stat.S_ISREG(found.st_mode):
        raise OSError(errno.EINVAL, "it is no ordinary file", str(path))


def ordinary_bytes(path: Path, most: int = MOST_BYTES) -> bytes:
    """The bytes of an ordinary file. Raises OSError as `open_ordinary`, and for a file of more than `most` bytes."""
    with open_ordinary(path) as file:
        content = file.read(most + 1)
    if len(content) > most:
        raise OSError(errno.EFBIG, f"it is larger than {most >> 20} MiB, and no file of this kind is", str(path))
    return content


def read_text(path: Path, most: int = MOST_BYTES) -> str:
    """The text of a file of at most `most` bytes.

    Raises FileError for a missing path, a directory, a pipe or a device, something unreadable or too large, or bytes
    that are not UTF-8.
    """
    return text_of(read_bytes(path, most), path)


def text_of(content: bytes, path: Path) -> str:
    """The text of a file's bytes; `path` is how the message calls it. Raises FileError if they are not UTF-8."""
    try:
        text = content.decode("utf-8-sig")  # some editors put a byte order mark first
    except UnicodeDecodeError:
        raise FileError(f"{path} is not text", why="it is not UTF-8", remedy="give a text file") from None
    return text.replace("\r\n", "\n").replace("\r", "\n")


def read_bytes(path: Path, most: int = MOST_BYTES) -> bytes:
    """The bytes of a file. Raises FileError as `read_text`, whatever the bytes are."""
    try:
        return ordinary_bytes(path, most)
    except FileNotFoundError:
        try:
            close = nearest(path.name, os.listdir(path.parent))
        except OSError:
            close = []
        hint = f"did you mean {' or '.join(close)}? " if close else ""
        raise FileError(f"{path} does not exist", remedy=f"{hint}check the path") from None
    except IsADirectoryError:
        raise FileError(f"{path} is a directory", why="a file is needed here", remedy="name the file in it") from None
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


def _refuse_special(path: Path) -> None:
    """Raises FileError for a pipe, a device or a socket: renaming a file to its name would destroy it."""
    try:
        kind = os.lstat(path).st_mode
    except (OSError, ValueError):  # not there; who writes it gets the reason for anything else
        return
    if not (stat.S_ISREG(kind) or stat.S_ISLNK(kind)):
        why = "a file would take its place, for every program of this machine"
        raise FileError(f"{path} is no ordinary file", why=why, remedy="give another name")


def refuse_unexpanded(path: Path) -> None:
    """Raises FileError for a path that begins with somebody's ~: a folder of that name would be made."""
    first = (*path.parts, "")[0]
    if first.startswith("~") and os.path.expanduser(first) != first:
        raise FileError(
            f"{path} begins with {first}, which the shell has left as it is",
            why="it does so in quotes and behind =; a folder of that name would be made here",
            remedy=f"write {os.path.expanduser(path)}",
        )


def write_atomically(path: Path, content: str | bytes, *, overwrite: bool = False) -> None:
    """Write a whole file or nothing: a temporary file beside it, flushed to disk, then renamed.

    Raises FileError when the path exists already (unless `overwrite`), is a directory, a pipe or a device, or cannot be
    written. A link is replaced, and not what it leads to.
    """
    if not overwrite or os.path.isdir(path):
        refuse_existing(path)
    _refuse_special(path)
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
