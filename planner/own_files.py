"""Files and folders that this program makes: opened without following links, deleted only where they are its own.

A name that is made, such as `run.lock` or `.DIR.preparing`, may be there already, put by somebody as a link to a file
of the user. Folders are opened once and reached by that descriptor, so that a link put there meanwhile changes nothing.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Collection
from pathlib import Path

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


def open_own(path: str | Path, flags: int, mode: int = 0o666, dir_fd: int | None = None) -> int:
    """The descriptor of an ordinary file, opened with these flags (os.O_…). dir_fd: the folder that `path` is in.

    Raises OSError for a link, which is not followed, for a pipe, a device or a folder, and where the system refuses.
    """
    try:
        # O_NONBLOCK: opening a pipe would wait for its other end; ordinary files do not know it
        handle = os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK, mode, dir_fd=dir_fd)
    except OSError as error:
        raise _explained(error, path) from None
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise OSError(errno.EINVAL, "it is no ordinary file", str(path))
    return handle


def open_own_folder(path: str | Path, dir_fd: int | None = None) -> int:
    """The descriptor of a folder. Raises OSError for anything else, such as a link to one."""
    try:
        return os.open(path, _FOLDER | os.O_NOFOLLOW, dir_fd=dir_fd)
    except OSError as error:
        raise _explained(error, path) from None


def _explained(error: OSError, path: str | Path) -> OSError:
    """Linux says "Too many levels of symbolic links" of a single one, and of a folder's "Not a directory"."""
    if error.errno in (errno.ELOOP, errno.ENOTDIR) and os.path.islink(path):
        return OSError(errno.ELOOP, "it is a link, which is not followed", str(path))
    return error


def refuse_link(path: Path) -> None:
    """Raises OSError for a link. What is not there is no link."""
    if os.path.islink(path):
        raise OSError(errno.ELOOP, "it is a link, which is not followed", str(path))


def not_ours(folder: int, is_ours: Callable[[str], bool]) -> str:
    """The first name in an open folder that is not ours, or is no ordinary file; "" if there is none."""
    for name in sorted(os.listdir(folder)):
        found = os.stat(name, dir_fd=folder, follow_symlinks=False)
        if not (is_ours(name) and stat.S_ISREG(found.st_mode)):
            return name
    return ""


def empty_own_folder(
    folder: int, is_ours: Callable[[str], bool], last: Collection[str] = (), kept: Collection[str] = ()
) -> None:
    """Delete the files in an open folder but those `kept`; those called `last` go last: they say whose the folder is.

    Raises OSError, with nothing deleted, if it holds anything that is not ours.
    """
    stranger = not_ours(folder, lambda name: name in kept or is_ours(name))
    if stranger:
        raise OSError(errno.ENOTEMPTY, f"it holds {stranger!r}, which gptplan did not make")
    for name in sorted(set(os.listdir(folder)) - set(kept), key=lambda name: (name in last, name)):
        os.unlink(name, dir_fd=folder)


def delete_own_folder(path: Path, is_ours: Callable[[str], bool], last: Collection[str] = ()) -> None:
    """Delete a folder and the files in it.

    Raises OSError, with nothing deleted, if it is a link or holds anything that is not ours.
    """
    above = os.open(path.parent, _FOLDER)
    try:
        folder = open_own_folder(path.name, dir_fd=above)
        try:
            empty_own_folder(folder, is_ours, last)
        finally:
            os.close(folder)
        os.rmdir(path.name, dir_fd=above)
    finally:
        os.close(above)
