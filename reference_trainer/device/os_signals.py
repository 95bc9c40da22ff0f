"""Signals: the first SIGINT or SIGTERM asks the loop to stop after its step, the second ends the process at once.

SIGUSR1 asks for a checkpoint and training goes on; SIGHUP, of a terminal that closes, changes nothing.
"""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType, TracebackType
from typing import Any

STOPPING = (signal.SIGINT, signal.SIGTERM)


class StopSignals:
    """Notes the first signal in `received` for as long as the `with` block lasts; then the old handlers return."""

    def __init__(self) -> None:
        self.received: signal.Signals | None = None
        self.save_wanted = False
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> StopSignals:
        # Python lets only the main thread set handlers; elsewhere signals stay whoever's they are
        if threading.current_thread() is threading.main_thread():
            handlers = dict.fromkeys(STOPPING, self._note)
            handlers |= {signal.SIGUSR1: self._save, signal.SIGHUP: _ignore}
            self._before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    @property
    def exit_code(self) -> int:
        """128 + the signal's number, as shells count: 130 for SIGINT, 143 for SIGTERM; 0 without a signal."""
        return 128 + self.received if self.received else 0

    def stopping(self) -> bool:
        """Whether a signal asked the run to stop."""
        return self.received is not None

    def take_save(self) -> bool:
        """Whether a checkpoint was asked for since the last call."""
        wanted, self.save_wanted = self.save_wanted, False
        return wanted

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.received is not None:
            # whoever asks twice is in a hurry; the last checkpoint is whole, and a save in progress is not yet one
            os._exit(128 + number)
        self.received = signal.Signals(number)

    def _save(self, number: int, frame: FrameType | None) -> None:
        self.save_wanted = True


def _ignore(number: int, frame: FrameType | None) -> None:
    """A handler and not SIG_IGN, which child processes would inherit."""
