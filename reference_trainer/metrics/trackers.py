"""Trackers that plot the rows of metrics.jsonl: TensorBoard, trackio, W&B offline. None of them can stop a run.

Each runs in its own thread with a bounded queue, so training never waits for it. A tracker that raises, or whose queue
is full, is turned off with one message; metrics.jsonl has the rows that it misses.

    tensorboard   RUN_DIR/tensorboard     after a rollback, later points are purged (`purge_step`)
    trackio       RUN_DIR/trackio         a local SQLite file; steps that it has already are skipped
    wandb         RUN_DIR/wandb           offline; upload with `wandb sync`; steps that it has already are skipped
"""

from __future__ import annotations

import json
import os
import queue
import sys
import threading
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

from planner.errors import InputError, MissingExtraError, nearest
from planner.files import ordinary_bytes
from planner.own_files import open_own, refuse_link

QUEUED = 4096  # rows that may wait; enough for minutes of small steps
CLOSE_SECONDS = 5.0  # seconds that the end of a run waits for all trackers together
Points = dict[str, float]
RunDetails = Mapping[str, Any]
STOP = None  # in the queue: no more rows


class Backend(Protocol):
    """A started tracker. Any exception turns it off."""

    redraws: bool  # whether a step may be drawn again

    def draw(self, step: int, points: Points) -> None:
        """Record the numbers of one step."""

    def close(self) -> None:
        """Write pending data."""


Begin = Callable[[Path, RunDetails, int], Backend]


class TensorBoard:
    """Event files in RUN_DIR/tensorboard."""

    redraws = True

    def __init__(self, root: Path, facts: RunDetails, first_step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter  # takes 0.5 s: only if requested

        self._open: Callable[[int], Any] = lambda step: SummaryWriter(str(root / "tensorboard"), purge_step=step)
        self._writer, self._last = self._open(first_step), first_step - 1
        if first_step == 1:
            self._writer.add_text("run", f"```json\n{json.dumps(dict(facts), indent=1)}\n```", 0)

    def draw(self, step: int, points: Points) -> None:
        """Write one scalar per number. After a rollback, first purge the points from `step` on."""
        if step < self._last:
            self._writer.close()
            self._writer = self._open(step)
        self._last = step
        for name, value in points.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        """Write pending data to the disk."""
        self._writer.close()


class Trackio:
    """A SQLite file in RUN_DIR/trackio; view it with `TRACKIO_DIR=RUN_DIR/trackio trackio show`."""

    redraws = False

    def __init__(self, root: Path, facts: RunDetails, first_step: int) -> None:
        os.environ.setdefault("TRACKIO_DIR", str((root / "trackio").absolute()))  # trackio reads it when it is imported
        import trackio  # type: ignore[import-not-found, unused-ignore]  # takes seconds: only if requested

        _print_to_stderr("trackio")
        self._module = trackio
        trackio.init(project="gptplan", name=root.absolute().name, config=dict(facts), resume="allow", embed=False)

    def draw(self, step: int, points: Points) -> None:
        """Write one row."""
        self._module.log(points, step=step)

    def close(self) -> None:
        """Write pending data to the disk."""
        self._module.finish()


class Wandb:
    """Weights & Biases, offline: files in RUN_DIR/wandb; nothing is uploaded."""

    redraws = False

    def __init__(self, root: Path, facts: RunDetails, first_step: int) -> None:
        import wandb  # type: ignore[import-not-found, unused-ignore]  # takes seconds: only if requested

        self._run = wandb.init(
            project="gptplan",
            name=root.absolute().name,
            dir=str(root),
            mode="offline",
            config=dict(facts),
            settings=wandb.Settings(console="off", quiet=True),  # do not capture our log
        )

    def draw(self, step: int, points: Points) -> None:
        """Write one row."""
        self._run.log(points, step=step)

    def close(self) -> None:
        """Write pending data to the disk."""
        self._run.finish()


BACKENDS: dict[str, Begin] = {"tensorboard": TensorBoard, "trackio": Trackio, "wandb": Wandb}


def check_trackers(names: tuple[str, ...]) -> None:
    """Raises InputError for an unknown tracker, MissingExtraError if one is not installed. Imports none of them."""
    for name in names:
        if name not in BACKENDS:
            close = nearest(name, BACKENDS)
            raise InputError(f"unknown tracker {name!r}", remedy=f"one of: {', '.join(close or sorted(BACKENDS))}")
        if find_spec(name) is None:
            raise MissingExtraError(name, name, f"--tracker {name}")


class Background:
    """One tracker in a thread. `failure`: why it was turned off; empty while it works."""

    def __init__(self, name: str, root: Path, facts: RunDetails, first_step: int) -> None:
        self.name, self.failure, self._reported = name, "", False
        self._begin, self._arguments = BACKENDS[name], (root, facts, first_step)
        self._drawn = root / f"{name}.drawn"
        self._queue: queue.Queue[tuple[int, Points] | None] = queue.Queue(QUEUED)
        # a daemon thread: a tracker that hangs does not keep the process alive
        self._thread = threading.Thread(target=self._work, name=f"tracker {name}", daemon=True)
        self._thread.start()

    def put(self, step: int, points: Points) -> None:
        """Queue a row, without waiting."""
        if not self.failure:
            try:
                self._queue.put_nowait((step, points))
            except queue.Full:
                self.failure = f"it is {QUEUED} rows behind"

    def failure_message(self) -> str:
        """Why the tracker was turned off, once; else empty."""
        if not self.failure or self._reported:
            return ""
        self._reported = True
        return f"the tracker {self.name} is turned off: {self.failure}; training continues; metrics.jsonl has all rows"

    def close(self, seconds: float) -> None:
        """Let it write pending rows, and wait at most `seconds`."""
        try:
            self._queue.put(STOP, timeout=seconds)
        except queue.Full:
            self.failure = self.failure or "it did not finish in time"
            return
        self._thread.join(seconds)
        if self._thread.is_alive():
            self.failure = self.failure or "it did not finish in time"

    def _work(self) -> None:
        try:
            refuse_link(self._arguments[0] / self.name)
            backend = self._begin(*self._arguments)
            earlier = last = 0 if backend.redraws else _number_in(self._drawn)
            while (item := self._queue.get()) is not STOP:
                step, points = item
                if self.failure:
                    break
                # an eval command adds numbers to the same step
                if backend.redraws or (step > earlier and step >= last):
                    backend.draw(step, points)
                    last = step
                    if self._queue.empty():  # no row is waiting
                        self._note_drawn(backend, last)
            backend.close()
            self._note_drawn(backend, last)
        except BaseException as error:  # whatever a foreign package does, even sys.exit, the run continues
            self.failure = self.failure or f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"

    def _note_drawn(self, backend: Backend, step: int) -> None:
        if not backend.redraws:
            with os.fdopen(open_own(self._drawn, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), "w", encoding="ascii") as file:
                file.write(f"{step}\n")


class Trackers:
    """All trackers of a run."""

    def __init__(self, names: tuple[str, ...], root: Path, facts: RunDetails, first_step: int) -> None:
        self._all = [Background(name, root, facts, first_step) for name in dict.fromkeys(names)]

    def log(self, row: Mapping[str, Any]) -> list[str]:
        """Queue a row of metrics.jsonl for all trackers. Returns messages for the log."""
        step = int(row["step"])
        points = {name: float(value) for name, value in row.items() if _is_drawn(name, value)}
        for tracker in self._all:
            tracker.put(step, points)
        return self.messages()

    def messages(self) -> list[str]:
        """A message for every tracker that was turned off since the last call."""
        return [message for tracker in self._all if (message := tracker.failure_message())]

    def close(self) -> list[str]:
        """Close all trackers at the end of a run. Returns messages for the log."""
        for tracker in self._all:
            tracker.close(CLOSE_SECONDS / len(self._all))
        return self.messages()


def _print_to_stderr(package: str) -> None:
    """Make `print` in the modules of a package write to stderr. A redirect of stdout would affect all threads."""

    def print_to_stderr(*words: object, **_: object) -> None:
        print(*words, file=sys.stderr)

    for name, module in tuple(sys.modules.items()):
        if name.partition(".")[0] == package:
            module.__dict__["print"] = print_to_stderr  # a module's own name hides the built-in one


def _is_drawn(name: str, value: object) -> bool:
    return name != "step" and isinstance(value, int | float)  # booleans become 0 and 1; null is a gap


def _number_in(path: Path) -> int:
    """The last step that an earlier call of the run recorded; 0 if unknown."""
    try:
        return int(ordinary_bytes(path, most=64))
    except (OSError, ValueError):
        return 0
