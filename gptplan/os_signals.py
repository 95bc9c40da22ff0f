"""Signals outside of the training loop: imports, checks, the measurement of the machine, the comparison at the end."""

from __future__ import annotations

import _thread
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

OWN_HANDLERS = ("tui", "wizard")  # Ctrl-C is a key there
TRAINING = ("run", "demo")
_PACKAGE = os.path.dirname(__file__)
_AGAIN_SECONDS = 0.02


@contextmanager
def quiet_signals(command: str) -> Iterator[None]:
    """In this block SIGINT and SIGTERM end the program with 130 and 143, without a traceback, tidying up on the way.

    Before it SIGINT has its default action (gptplan.start). A command that trains is not killed by SIGHUP and SIGUSR1.
    The training loop has handlers of its own (reference_trainer.device.os_signals). What is ignored stays ignored.
    """
    handlers: dict[signal.Signals, Any] = {}
    if threading.current_thread() is not threading.main_thread():
        pass  # only the main thread sets handlers
    elif command in OWN_HANDLERS:
        if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:
            handlers = {signal.SIGINT: signal.default_int_handler}  # KeyboardInterrupt, which they catch
    else:
        handlers = {signal.SIGINT: _end, signal.SIGTERM: _end}
        if command in TRAINING:
            handlers |= {signal.SIGHUP: _nothing, signal.SIGUSR1: _nothing}
    before = {n: signal.signal(n, h) for n, h in handlers.items() if signal.getsignal(n) is not signal.SIG_IGN}
    hook = sys.unraisablehook
    sys.unraisablehook = lambda lost: _lost(lost, hook)
    try:
        yield
    finally:
        sys.unraisablehook = hook
        for number, handler in before.items():
            signal.signal(number, handler)


def _end(number: int, frame: FrameType | None) -> None:
    """Raise SystemExit, but not into an import: a module that is half imported turns it into another error."""
    if _is_in(frame, _lost):
        _end_later(number)
        return
    importer = _importer(frame)
    if importer is None:
        sys.exit(128 + number)
    if importer.startswith(_PACKAGE):
        os._exit(128 + number)  # the imports of a command: it has begun nothing yet
    _end_later(number)


def _importer(frame: FrameType | None) -> str | None:
    """The file with the outermost import that is under way; None if there is none."""
    found, importing = None, False
    while frame is not None:
        file = frame.f_code.co_filename
        inside = file.startswith("<frozen importlib")
        if importing and not inside:
            found = file
        importing, frame = inside, frame.f_back
    return found


def _is_in(frame: FrameType | None, function: Callable[..., object]) -> bool:
    while frame is not None and frame.f_code is not function.__code__:
        frame = frame.f_back
    return frame is not None


def _end_later(number: int) -> None:
    """Send the signal again in a moment. Not by `threading`, whose locks the interrupted code may hold."""
    _thread.start_new_thread(_send, (number,))


def _send(number: int) -> None:
    time.sleep(_AGAIN_SECONDS)
    os.kill(os.getpid(), number)


def _lost(lost: sys.UnraisableHookArgs, hook: Callable[[sys.UnraisableHookArgs], object]) -> None:
    """The signal came in a callback of the garbage collector or of a weak reference, where Python drops exceptions."""
    if isinstance(lost.exc_value, SystemExit) and isinstance(lost.exc_value.code, int) and lost.exc_value.code > 128:
        _end_later(lost.exc_value.code - 128)
    else:
        hook(lost)


def _nothing(number: int, frame: FrameType | None) -> None:
    """A handler, not SIG_IGN, which children would inherit."""
