"""Child processes of the tests: they react to signals as at a terminal, and none outlives its test.

A test run in the background (`nohup make test &`) ignores SIGHUP and SIGINT, and a child inherits what its parent
ignores. `restore_for_children` ends that once per test process (tests/conftest.py calls it), so that a plain
`subprocess.run` is good enough for a child that ends by itself. A child that a test stops, signals or types to is
started with `child` or `at_terminal`: these end it whatever happens.
"""

from __future__ import annotations

import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import termios
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Any

# Python ignores these itself, and subprocess gives their default action back to every child
BY_PYTHON = {signal.SIGPIPE, signal.SIGXFSZ}


def restore_for_children() -> set[signal.Signals]:
    """The signals that were ignored until now. This process goes on ignoring them; its children do not.

    A handler that does nothing takes the place of SIG_IGN: a new program starts with the default action instead.
    """
    ignored = {n for n in signal.valid_signals() if signal.getsignal(n) is signal.SIG_IGN and n not in BY_PYTHON}
    for number in ignored:
        signal.signal(number, _nothing)
    return {signal.Signals(number) for number in ignored}


def _nothing(number: int, frame: FrameType | None) -> None:
    """A handler, not SIG_IGN: handlers are not inherited."""


@contextmanager
def child(command: Sequence[str], **options: Any) -> Iterator[subprocess.Popen[Any]]:
    """A child process for as long as the block lasts. At its end the child and what it started are killed.

    It has a session of its own: the terminal of the person who tests does not reach it.
    """
    with subprocess.Popen(command, **{"start_new_session": True} | options) as process:
        try:
            yield process
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)


class Terminal:
    """A child at a pseudo-terminal: what a test types, and what it has shown so far in `seen`."""

    def __init__(self, process: subprocess.Popen[bytes], descriptor: int, seconds: float) -> None:
        self.process, self.seen = process, b""
        self._descriptor, self._deadline = descriptor, time.monotonic() + seconds

    def type(self, keys: bytes) -> None:
        """Press these keys."""
        os.write(self._descriptor, keys)

    def until(self, text: bytes) -> None:
        """Read until `text` was shown. Raises AssertionError if the child ends, or its time, before that."""
        while text not in self.seen:
            assert self._read(), f"{text!r} was never shown, only {self.seen[-500:]!r}"

    def rest(self) -> int:
        """Read until the child ends; its exit code."""
        while self._read():
            pass
        return self.process.wait(timeout=max(1.0, self._deadline - time.monotonic()))

    def interrupted(self) -> int:
        """Press Ctrl-C until the child ends, as a person does; its exit code.

        CPython's input() sees a signal that comes between its prompt and its read only after the next key or signal.
        """
        self.process.send_signal(signal.SIGINT)
        while True:
            ready, _, _ = select.select([self._descriptor], [], [], 2.0)
            if not ready and time.monotonic() < self._deadline:
                self.process.send_signal(signal.SIGINT)
            elif not self._read():
                return self.process.wait(timeout=max(1.0, self._deadline - time.monotonic()))

    def _read(self) -> bool:
        """Whether something was read; not if the child closed its terminal."""
        ready, _, _ = select.select([self._descriptor], [], [], max(0.0, self._deadline - time.monotonic()))
        assert ready, f"nothing more was shown in time after {self.seen[-500:]!r}"
        try:
            piece = os.read(self._descriptor, 65536)
        except OSError:  # Linux: the other side is closed
            return False
        self.seen += piece
        return bool(piece)


@contextmanager
def at_terminal(
    command: Sequence[str], rows: int = 24, columns: int = 80, env: dict[str, str] | None = None, seconds: float = 60
) -> Iterator[Terminal]:
    """A child whose input and output are a terminal of this size; it must be done after `seconds`."""
    ours, theirs = pty.openpty()
    try:
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        with child(command, stdin=theirs, stdout=theirs, stderr=theirs, env=env) as process:
            os.close(theirs)
            yield Terminal(process, ours, seconds)
    finally:
        os.close(ours)
