"""stdout and stderr that nothing is lost by: what cannot be written there ends no training and changes no exit code."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO, cast


class GuardedStream:
    """A text stream whose failures are swallowed: a full disk, a pipe whose reader left, a closed terminal.

    `inner` is the stream itself, for a result that must not be lost in silence. All else is the inner stream's.
    `written`: when something was last written, in seconds of the monotonic clock.
    """

    def __init__(self, inner: TextIO) -> None:
        self.inner, self.written = inner, time.monotonic()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def write(self, text: str) -> int:
        """The length of the text, written or not."""
        self.written = time.monotonic()
        try:
            return self.inner.write(text)
        except UnicodeError:
            raise
        except (OSError, ValueError):  # ValueError: the stream is closed
            silence(self.inner)
            return len(text)

    def flush(self) -> None:
        """Write what waits in the buffer, if it can be written."""
        try:
            self.inner.flush()
        except (OSError, ValueError):
            silence(self.inner)


def silence(stream: TextIO) -> None:
    """Send the rest of a stream to nowhere: Python would try again at its exit, and fail with exit code 120."""
    with suppress(OSError, ValueError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, stream.fileno())
        os.close(null)


def unguarded(stream: TextIO) -> TextIO:
    """The stream itself, whose failures are raised."""
    return cast(TextIO, getattr(stream, "inner", stream))


@contextmanager
def guarded_streams() -> Iterator[None]:
    """stdout and stderr are guarded in this block.

    Descriptors that the caller closed (`2>&-`) are opened first: the next file would get their number, and whatever a
    library prints would be written into it.
    """
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest free number: this one
    before = sys.stdout, sys.stderr
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 (open until the process ends)
    if sys.stdout is not None:
        sys.stdout = cast(TextIO, GuardedStream(sys.stdout))
    sys.stderr = cast(TextIO, GuardedStream(sys.stderr))
    try:
        yield
    finally:
        for stream in (sys.stdout, sys.stderr):
            if stream is not None:
                stream.flush()
        sys.stdout = before[0]
        if before[1] is not None:
            sys.stderr = before[1]
