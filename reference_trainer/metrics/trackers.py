"""Trackers that draw the rows of metrics.jsonl: TensorBoard, trackio, W&B offline. None of them can hurt the run.

Each works in a thread of its own behind a bounded queue: training puts a row there and goes on. A tracker that raises,
or is so slow that its queue is full, is turned off with one message; what it misses stands in metrics.jsonl.

    tensorboard   RUN_DIR/tensorboard     later points of an earlier attempt are purged (`purge_step`)
    trackio       RUN_DIR/trackio         a local SQLite file; steps that were drawn before are left out
    wandb         RUN_DIR/wandb           offline; `wandb sync` sends it; steps that were drawn before are left out
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

QUEUED = 4096  # rows that may wait: minutes of small steps
CLOSE_SECONDS = 5.0  # seconds that the end of a run waits for all trackers together
Points = dict[str, float]
RunDetails = Mapping[str, Any]
STOP = None  # in the queue: nothing follows


class Backend(Protocol):
    """A tracker that has begun. Whatever it raises turns it off."""

    redraws: bool  # whether points of steps that were drawn before may be drawn again

    def draw(self, step: int, points: Points) -> None:
        """The numbers of one step."""

    def close(self) -> None:
        """Write what is left."""


Begin = Callable[[Path, RunDetails, int], Backend]


class TensorBoard:
    """Event files in RUN_DIR/tensorboard."""

    redraws = True

    def __init__(self, root: Path, facts: RunDetails, first_step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter  # 0.5 s, only where it is asked for

        self._open: Callable[[int], Any] = lambda step: SummaryWriter(str(root / "tensorboard"), purge_step=step)
        self._writer, self._last = self._open(first_step), first_step - 1
        if first_step == 1:
            self._writer.add_text("run", f"```json\n{json.dumps(dict(facts), indent=1)}\n```", 0)

    def draw(self, step: int, points: Points) -> None:
        """One scalar each; after a rollback the points from `step` on are purged first."""
        if step < self._last:
            self._writer.close()
            self._writer = self._open(step)
        self._last = step
        for name, value in points.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        """To the disk."""
        self._writer.close()


class Trackio:
    """A SQLite file in RUN_DIR/trackio; `TRACKIO_DIR=RUN_DIR/trackio trackio show` shows it."""

    redraws = False

    def __init__(self, root: Path, facts: RunDetails, first_step: int) -> None:
        os.environ.setdefault("TRACKIO_DIR", str((root / "trackio").absolute()))  # it is read at the import
        import trackio  # type: ignore[import-not-found, unused-ignore]  # seconds, only where it is asked for

        _talk_on_stderr("trackio")
        self._module = trackio
        trackio.init(project="gptplan", name=root.absolute().name, config=dict(facts), resume="allow", embed=False)

    def draw(self, step: int, points: Points) -> None:
        """One row."""
        self._module.log(points, step=step)

    def close(self) -> None:
        """To the disk."""
        self._module.finish()


class Wandb:
    """Weights & Biases, offline: files in RUN_DIR/wandb, nothing is sent."""

    redraws = False

    def __init__(self, root: Path, facts: RunDetails, first_step: int) -> None:
        import wandb  # type: ignore[import-not-found, unused-ignore]  # seconds, only where it is asked for

        self._run = wandb.init(
            project="gptplan",
            name=root.absolute().name,
            dir=str(root),
            mode="offline",
            config=dict(facts),
            settings=wandb.Settings(console="off", quiet=True),  # our own lines stay ours
        )

    def draw(self, step: int, points: Points) -> None:
        """One row."""
        self._run.log(points, step=step)

    def close(self) -> None:
        """To the disk."""
        self._run.finish()


BACKENDS: dict[str, Begin] = {"tensorboard": TensorBoard, "trackio": Trackio, "wandb": Wandb}


def check_trackers(names: tuple[str, ...]) -> None:
    """Raises InputError for an unknown tracker, MissingExtraError for one that is not installed; imports none."""
    for name in names:
        if name not in BACKENDS:
            close = nearest(name, BACKENDS)
            raise InputError(f"unknown tracker {name!r}", remedy=f"one of: {', '.join(close or sorted(BACKENDS))}")
        if find_spec(name) is None:
            raise MissingExtraError(name, name, f"--tracker {name}")


class Background:
    """One tracker in a thread. `lost`: the message of its end, before the run's; empty while all is well."""

    def __init__(self, name: str, root: Path, facts: RunDetails, first_step: int) -> None:
        self.name, self.lost, self._told = name, "", False
        self._begin, self._arguments = BACKENDS[name], (root, facts, first_step)
        self._drawn = root / f"{name}.drawn"
        self._queue: queue.Queue[tuple[int, Points] | None] = queue.Queue(QUEUED)
        # a daemon: a tracker that hangs does not keep the process alive
        self._thread = threading.Thread(target=self._work, name=f"tracker {name}", daemon=True)
        self._thread.start()

    def put(self, step: int, points: Points) -> None:
        """Hand over a row, without waiting."""
        if not self.lost:
            try:
                self._queue.put_nowait((step, points))
            except queue.Full:
                self.lost = f"it is {QUEUED} rows behind"

    def messages(self) -> str:
        """Why the tracker was turned off, once; else empty."""
        if not self.lost or self._told:
            return ""
        self._told = True
        return f"the tracker {self.name} is turned off: {self.lost}; training goes on, and metrics.jsonl has every row"

    def close(self, seconds: float) -> None:
        """Let it write what is left, and wait so long for it."""
        try:
            self._queue.put(STOP, timeout=seconds)
        except queue.Full:
            self.lost = self.lost or "it does not come to an end"
            return
        self._thread.join(seconds)
        if self._thread.is_alive():
            self.lost = self.lost or "it does not come to an end"

    def _work(self) -> None:
        try:
            backend = self._begin(*self._arguments)
            earlier = last = 0 if backend.redraws else _number_in(self._drawn)
            while (item := self._queue.get()) is not STOP:
                step, points = item
                if self.lost:
                    break
                # the same step comes again with the numbers of an eval command
                if backend.redraws or (step > earlier and step >= last):
                    backend.draw(step, points)
                    last = step
                    if self._queue.empty():  # nothing waits for it
                        self._note_drawn(backend, last)
            backend.close()
            self._note_drawn(backend, last)
        except BaseException as error:  # whatever a foreign package does, sys.exit included, the run goes on
            self.lost = self.lost or f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"

    def _note_drawn(self, backend: Backend, step: int) -> None:
        if not backend.redraws:
            self._drawn.write_text(f"{step}\n", encoding="ascii")


class Trackers:
    """All trackers of a run."""

    def __init__(self, names: tuple[str, ...], root: Path, facts: RunDetails, first_step: int) -> None:
        self._all = [Background(name, root, facts, first_step) for name in dict.fromkeys(names)]

    def log(self, row: Mapping[str, Any]) -> list[str]:
        """Hand a row of metrics.jsonl to all; returns what is to be said."""
        step = int(row["step"])
        points = {name: float(value) for name, value in row.items() if _is_drawn(name, value)}
        for tracker in self._all:
            tracker.put(step, points)
        return self.messages()

    def messages(self) -> list[str]:
        """Of every tracker that was turned off since the last call, why."""
        return [messages for tracker in self._all if (messages := tracker.messages())]

    def close(self) -> list[str]:
        """The end of a run; returns what is to be said."""
        for tracker in self._all:
            tracker.close(CLOSE_SECONDS / len(self._all))
        return self.messages()


def _talk_on_stderr(package: str) -> None:
    """Let the `print`s of a package's modules go to stderr: stdout is data, and redirecting it is for all threads."""

    def quiet(*words: object, **_: object) -> None:
        print(*words, file=sys.stderr)

    for name, module in tuple(sys.modules.items()):
        if name.partition(".")[0] == package:
            module.__dict__["print"] = quiet  # found there before the built-in one


def _is_drawn(name: str, value: object) -> bool:
    return name != "step" and isinstance(value, int | float)  # truth is drawn as 0 and 1, null as a gap


def _number_in(path: Path) -> int:
    """The last step that was drawn by an earlier call of the run; 0 where nobody knows."""
    try:
        return int(path.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return 0
