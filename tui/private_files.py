"""Files for this user only, below the user's state directory: mode 0600, whole or not at all, through no link."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from planner.errors import FileError
from planner.own_files import open_own
from planner.paths import is_link

NO_LINK = getattr(os, "O_NOFOLLOW", 0)  # Windows has neither this flag nor modes


def state_directory(*below: str) -> Path:
    """A directory of ours in the user's state directory, made if it is not there: mode 0700.

    Raises FileError where it cannot be made, is a link, or belongs to somebody else.
    """
    from platformdirs import user_state_dir  # 20 ms, not before the first paint

    directory = Path(user_state_dir("gptplan"), *below)
    try:
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        found = directory.lstat()
    except OSError as error:
        raise _unusable(directory, error.strerror or str(error)) from None
    if is_link(directory):
        raise _unusable(directory, "it is a link")
    if hasattr(os, "getuid") and found.st_uid != os.getuid():
        raise _unusable(directory, "it belongs to another user")
    return directory


def _unusable(directory: Path, why: str) -> FileError:
    return FileError(
        f"the state directory {directory} cannot be used", why=why, remedy="set XDG_STATE_HOME to a directory of yours"
    )


def write_private(directory: Path, name: str, content: bytes) -> int:
    """Write a whole file or nothing; its descriptor, open and locked: while this process lives. Raises OSError."""
    new = directory / f".{name}.{os.getpid()}.new"
    new.unlink(missing_ok=True)  # of a process with the same number that was killed here
    descriptor = os.open(new, os.O_RDWR | os.O_CREAT | os.O_EXCL | NO_LINK, 0o600)
    try:
        lock(descriptor)
        with os.fdopen(os.dup(descriptor), "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(new, directory / name)
    except BaseException:
        os.close(descriptor)
        new.unlink(missing_ok=True)
        raise
    return descriptor


def open_private(path: Path) -> int:
    """The descriptor, for reading, of a file that is ordinary and ours, through no link. Raises OSError."""
    descriptor = open_own(path, os.O_RDONLY)  # a lock needs no right to write, which the disk may refuse
    if hasattr(os, "getuid") and os.fstat(descriptor).st_uid != os.getuid():
        os.close(descriptor)
        raise OSError(errno.EPERM, "it belongs to another user", str(path))
    return descriptor


def lock(descriptor: int) -> bool:
    """Whether this process has the lock of a file now, and no other has it. The kernel gives it back at any end."""
    try:
        import fcntl
    except ImportError:  # Windows
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks
        return True
    return True
