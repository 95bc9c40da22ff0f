"""What is there under a path: never an exception, whatever the name is.

pathlib's tests raise for a name that is too long and for a folder without permission. Here such a path is not there;
who opens it gets the reason from the system.
"""

from __future__ import annotations

import os
from pathlib import Path


def exists(path: Path) -> bool:
    """Whether anything can be reached under the path; a link to nowhere cannot."""
    return os.path.exists(path)


def is_file(path: Path) -> bool:
    """Whether an ordinary file can be reached under the path."""
    return os.path.isfile(path)


def is_folder(path: Path) -> bool:
    """Whether a folder can be reached under the path."""
    return os.path.isdir(path)


def is_link(path: Path) -> bool:
    """Whether the path itself is a link."""
    return os.path.islink(path)
