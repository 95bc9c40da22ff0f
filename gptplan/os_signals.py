"""Signals outside of the training loop: imports, checks, the measurement of the machine, the comparison at the end."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

OWN_HANDLERS = ("tui", "wizard")  # Ctrl-C is a key there
TRAINING = ("run", "demo")


@contextmanager
def quiet_signals(command: str) -> Iterator[None]:
    """In this block SIGINT and SIGTERM end the program with 130 and 143, without a traceback, tidying up on the way.

    A command that trains is not killed by SIGHUP and SIGUSR1. The training loop has handlers of its own
    (reference_trainer.device.os_signals). A signal that is ignored stays ignored.
    """
    handlers: dict[signal.Signals, Any] = {}
    if command not in OWN_HANDLERS and threading.current_thread() is threading.main_thread():
        handlers = {signal.SIGINT: _end, signal.SIGTERM: _end}
        if command in TRAINING:
            handlers |= {signal.SIGHUP: _nothing, signal.SIGUSR1: _nothing}
    before = {n: signal.signal(n, h) for n, h in handlers.items() if signal.getsignal(n) is not signal.SIG_IGN}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _end(number: int, frame: FrameType | None) -> None:
    sys.exit(128 + number)


def _nothing(number: int, frame: FrameType | None) -> None:
    """A handler, not SIG_IGN, which children would inherit."""
