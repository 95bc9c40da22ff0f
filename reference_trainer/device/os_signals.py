"""Signals: the first SIGINT or SIGTERM stops training after the current step, the second ends the process at once.

SIGUSR1 requests a checkpoint; training continues. SIGHUP (the terminal was closed) is ignored. A signal that is ignored
when the run starts stays ignored: `nohup gptplan run …`, or a shell that starts it in the background, wants that.
"""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType, TracebackType
from typing import Any, ClassVar

STOPPING = (signal.SIGINT, signal.SIGTERM)


class StopSignals:
    """Records the first stop signal in `received` while the `with` block runs; then the previous handlers return.

    told_to_stop: whether the last block of this process has received one.
    """

    told_to_stop: ClassVar[bool] = False

    def __init__(self) -> None:
        self.received: signal.Signals | None = None
        self.save_requested = False
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> StopSignals:
        # Python allows only the main thread to set handlers; in other threads the caller's handlers stay
        StopSignals.told_to_stop = False
        if threading.current_thread() is threading.main_thread():
            handlers = dict.fromkeys(STOPPING, self._stop)
            handlers |= {signal.SIGUSR1: self._save, signal.SIGHUP: _ignore}
            for number, handler in handlers.items():
                if signal.getsignal(number) is not signal.SIG_IGN:
                    self._before[number] = signal.signal(number, handler)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    @property
    def exit_code(self) -> int:
        """128 + the number of the signal, as in a shell: 130 for SIGINT, 143 for SIGTERM; 0 without a signal."""
        return 128 + self.received if self.received else 0

    def stopping(self) -> bool:
        """Whether a stop signal was received."""
        return self.received is not None

    def take_save(self) -> bool:
        """Whether a checkpoint was requested since the last call."""
        requested, self.save_requested = self.save_requested, False
        return requested

    def _stop(self, number: int, frame: FrameType | None) -> None:
        if self.received is not None:
            # safe: the last checkpoint is complete, and one that is being written is not published yet
            os._exit(128 + number)
        self.received = signal.Signals(number)
        StopSignals.told_to_stop = True

    def _save(self, number: int, frame: FrameType | None) -> None:
        self.save_requested = True


def _ignore(number: int, frame: FrameType | None) -> None:
    """Do nothing. SIG_IGN would be inherited by child processes; a handler is not."""
