"""What the program does at the moment, in a few words: the command shows it after a second of silence.

with doing("reading the data"): …          or, for a whole function, @doing("reading the data")
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field


@dataclass(eq=False, slots=True)
class Activity:
    """A block that is at work. what: begins with a verb in -ing. began: seconds of the monotonic clock."""

    what: str
    began: float = field(default_factory=lambda: time.monotonic())
    shown: bool = False


_blocks: list[Activity] = []  # the innermost last; threads share it, so that one of them can look


@contextmanager
def doing(what: str) -> Iterator[None]:
    """Name what this block does. Blocks nest."""
    activity = Activity(what)
    _blocks.append(activity)
    try:
        yield
    finally:
        _blocks.remove(activity)


def current_activity() -> Activity | None:
    """The innermost block that is at work."""
    return next(iter(_blocks[-1:]), None)
