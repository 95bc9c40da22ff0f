"""Nobody waits in silence: after a second without output a line on stderr says what the program does.

On a terminal only: in a log or a pipe nobody waits, and a line that depends on the machine's speed would be noise.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from gptplan.standard_streams import GuardedStream
from planner.activity import current_activity, doing

SILENT_SECONDS = 1.0
LOOK_SECONDS = 0.1
_TORCH = "loading PyTorch (a second or more), then"
# of each command, until a part of it says more; None: it has a screen or asks questions
DOES: dict[str, str | None] = {
    "estimate": "planning; of a run that does not fit, the changes that would make it fit are tried",
    "explain": "planning, to explain the number",
    "plan": "planning; of a run that does not fit, the changes that would make it fit are tried",
    "search": "trying layouts",
    "fit": "trying what fits",
    "flops": "counting FLOPs",
    "schedule": "computing the schedule",
    "batch": "trying batch sizes",
    "groups": "sorting the parameters",
    "data": "looking for text",
    "trace": f"{_TORCH} replaying two steps on fake tensors",
    "preflight": f"{_TORCH} the checks",
    "lr-find": f"{_TORCH} the range test",
    "run": f"{_TORCH} the checks before the first step",
    "sample": f"{_TORCH} reading the checkpoint",
    "compare": "reading what was measured",
    "postmortem": "reading the logs of the run",
    "import": "reading the files of another engine",
    "export": f"{_TORCH} reading the checkpoint",
    "calibrate": f"{_TORCH} timing kernels",
    "demo": f"{_TORCH} measuring this machine",
    "tui": None,
    "wizard": None,
    "schema": "collecting the schemas",
}


class SilenceBreaker:
    """`look()` shows the current activity once, if it has lasted a second and nothing was shown for a second."""

    def __init__(self, streams: list[GuardedStream], clock: Callable[[], float] = time.monotonic) -> None:
        """streams: those that people see; the last is written to."""
        self.streams, self.clock = streams, clock

    def look(self) -> None:
        """To be called a few times a second."""
        activity = current_activity()
        if activity is None or activity.shown:
            return
        since = max(activity.began, *(stream.written for stream in self.streams))
        if self.clock() - since >= SILENT_SECONDS:
            activity.shown = True
            self.streams[-1].write(f"{activity.what} …\n")
            self.streams[-1].flush()


@contextmanager
def no_silence(command: str) -> Iterator[None]:
    """In this block a thread looks whether the program is silent, if stderr is a terminal."""
    what, stderr = DOES.get(command), sys.stderr
    if what is None or not (isinstance(stderr, GuardedStream) and _is_terminal(stderr)):
        yield
        return
    breaker = SilenceBreaker([s for s in (sys.stdout, stderr) if isinstance(s, GuardedStream)])
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(LOOK_SECONDS):
            breaker.look()

    thread = threading.Thread(target=watch, name="silence", daemon=True)
    with doing(what):
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()


def _is_terminal(stream: Any) -> bool:
    try:
        return bool(stream.isatty())
    except ValueError:  # closed
        return False
