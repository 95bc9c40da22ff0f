"""Finds the rank that hangs: a thread of each rank tells the others that it lives, and how far it has come.

A rank that waits for another stands still too, inside of PyTorch, where no message reaches it. When this rank has not
moved for the time limit, its thread looks at what the others told: one that tells nothing any more is stopped, one that
has come less far than the rest keeps them waiting. A rank that is at fault in neither way names it and ends; whoever
started the ranks then ends all. Nothing is sent in a step: the thread counts, and speaks to the store of the group.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple

from planner.errors import PlanError
from planner.units import format_duration
from reference_trainer.distributed.ranks import Ranks

RANK_TIMEOUT = 600.0  # seconds
_TELL_SECONDS = 5.0  # between two messages of a rank, at most
_EXIT_CODE, _SAID = 2, "a rank hangs"


@dataclass(slots=True)
class Moves:
    """How far this rank has come: `count` grows in every part of a step. busy: at work of its own that takes long."""

    count: int = 0
    busy: int = 0

    def moved(self) -> None:
        """Note that something was done."""
        self.count += 1

    @contextmanager
    def working(self) -> Iterator[None]:
        """Within this block the rank counts as moving: it saves, compiles, or runs a command of the user."""
        self.busy += 1
        try:
            yield
        finally:
            self.busy -= 1
            self.count += 1


class Told(NamedTuple):
    """What a rank last told: how often it told something, and how far it has come."""

    beats: int
    moves: int


class Watch:
    """Watches all ranks within a `with` block. end: ends this process with a message; for tests another function."""

    def __init__(
        self, ranks: Ranks, moves: Moves, seconds: float, end: Callable[[PlanError], None] | None = None
    ) -> None:
        self.ranks, self.moves, self.seconds = ranks, moves, seconds
        self.end = end or end_process
        self._beats = 0
        self._over = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Watch:
        if self.ranks.world > 1 and self.ranks.store is not None:
            self._tell()
            self._thread = threading.Thread(target=self._watch, name="ranks", daemon=True)
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        if self._thread is not None:
            self._thread.join()

    def _tell(self) -> None:
        self._beats += 1
        if self.moves.busy:
            self.moves.count += 1
        assert self.ranks.store is not None
        self.ranks.store.set(f"moves/{self.ranks.rank}", f"{self._beats} {self.moves.count}")

    def _told(self) -> dict[int, Told]:
        store, found = self.ranks.store, dict[int, Told]()
        assert store is not None
        for rank in range(self.ranks.world):
            if store.check([f"moves/{rank}"]):  # one that is not there yet would be waited for
                beats, count = store.get(f"moves/{rank}").split()
                found[rank] = Told(int(beats), int(count))
        return found

    def _watch(self) -> None:
        pause = min(_TELL_SECONDS, self.seconds / 4)
        last, since = -1, time.monotonic()
        try:
            while not self._over.wait(pause):
                self._tell()
                if self.moves.count != last:
                    last, since = self.moves.count, time.monotonic()
                elif time.monotonic() - since > self.seconds:
                    self._look(pause)
        except RuntimeError:  # the store is gone: so is whoever started the ranks, and the run with it
            return

    def _look(self, pause: float) -> None:
        """Name who hangs, if this rank is the first of those that do not."""
        before = self._told()
        if self._over.wait(2 * pause):
            return
        self._tell()
        error, store = who_hangs(before, self._told(), self.ranks, self.seconds), self.ranks.store
        # the one that has said it is silent from then on, and hangs in nobody's eyes
        if error is not None and store is not None and not store.check([_SAID]):
            store.set(_SAID, str(self.ranks.rank))
            self.end(error)


def who_hangs(before: Mapping[int, Told], now: Mapping[int, Told], ranks: Ranks, seconds: float) -> PlanError | None:
    """The error that names the ranks that hang; None if it is for another rank to say, or if they move again.

    before, now: what each rank had told, and some time later. `seconds`: how long this rank has stood still.
    """
    if any(told.moves != before[rank].moves for rank, told in now.items() if rank in before):
        return None
    silent = [rank for rank in now if rank in before and now[rank].beats == before[rank].beats]
    behind = [rank for rank in now if now[rank].moves < max(told.moves for told in now.values())]
    accused, why = silent, "its process tells nothing any more: it is stopped, or its machine is gone"
    if not silent:
        accused, why = behind, "it has come less far than the others, and all wait for it"
    speaker = min(set(now) - set(accused), default=ranks.rank)
    if speaker != ranks.rank:
        return None
    if not accused:
        who, why = "all ranks hang", "each waits for the others, and none has come less far: the network between them?"
    else:
        names = ", ".join(map(str, accused))
        who = f"rank{'s' if len(accused) > 1 else ''} {names} of {ranks.world} hang{'' if len(accused) > 1 else 's'}"
    return PlanError(
        f"{who}: nothing has moved for {format_duration(seconds)}",
        why=why,
        remedy="look at its machine and its data, then continue from the last checkpoint with --resume",
    )


def end_process(error: PlanError) -> None:
    """Say it and end this process at once: its main thread is inside of a call that does not return."""
    sys.stderr.write(f"error: {error.message()}\n")
    sys.stderr.flush()
    os._exit(_EXIT_CODE)
