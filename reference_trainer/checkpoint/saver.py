"""Writes the checkpoints of a run, in the training thread or in the background.

    save     [wait for the save in flight] → copy to the host → (thread:) write, hash, publish, read back → delete old
    check    report the saves that have ended, in the training thread

An asynchronous save copies every tensor to host memory before it returns, so the checkpoint has the weights of its step
even while training continues. That memory, as large as a checkpoint, is allocated at the first save and reused; on CUDA
it is pinned. A failed save is reported and training continues, because the disk may have room later; after
`MAX_FAILURES` in a row training stops.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import torch
from torch import Tensor

from planner.config.loop import CheckpointConfig
from planner.errors import FileError, PlanError
from reference_trainer.checkpoint.atomic import stored_bytes
from reference_trainer.checkpoint.checkpoint import Contents, State, contents_of, finite_flags, refuse_nonfinite, write
from reference_trainer.checkpoint.retention import prune
from reference_trainer.optim.updater import Updater

MAX_FAILURES = 3  # in a row: by then a disk that was full for a moment has been emptied, or nobody is there to do it
ALIGNMENT = 64  # bytes: of each tensor in the host copy


@dataclass(frozen=True, slots=True)
class SaveReport:
    """The result of a save. `error`: why there is no checkpoint; None: it was written and verified.

    stalled_seconds: how long training waited. write_seconds: duration of the write, perhaps in the background.
    notes: a message for each old checkpoint that could not be deleted.
    """

    step: int
    size_bytes: int | None
    stalled_seconds: float
    write_seconds: float
    error: PlanError | None
    notes: tuple[str, ...] = ()


class HostCopy:
    """Host memory for the tensors of a checkpoint: one reused block, pinned if they are on a GPU."""

    def __init__(self) -> None:
        self._block = torch.empty(0, dtype=torch.uint8)

    def of(self, contents: Contents, flags: Tensor) -> tuple[Contents, Tensor]:
        """Copies of all tensors and of `flags`, complete on return; the copies of the previous call are overwritten."""
        flat = [t for tensors in contents.values() for t in tensors.values()] + [flags]
        places = _places(flat)
        pinned = flags.is_cuda
        if self._block.numel() < places[-1]:
            self._block = torch.empty(places[-1], dtype=torch.uint8, pin_memory=pinned)
        copies = [
            self._block[at : at + t.numel() * t.element_size()].view(t.dtype).view(t.shape).copy_(t, non_blocking=True)
            for at, t in zip(places, flat, strict=False)
        ]
        if pinned:
            torch.cuda.current_stream(
                flags.device
            ).synchronize()  # the one wait: until here nothing waited for the device
        rest = iter(copies)
        return {file: {name: next(rest) for name in tensors} for file, tensors in contents.items()}, next(rest)


def _places(tensors: list[Tensor]) -> list[int]:
    """The aligned offset of each tensor in one block of bytes; the last entry is the block's size."""
    places = [0]
    for t in tensors:
        places.append(places[-1] + math.ceil(t.numel() * t.element_size() / ALIGNMENT) * ALIGNMENT)
    return places


class Saver:
    """Saves the checkpoints of one run within a `with` block; at its end no save is running.

    extra: gives the loop's own tensors, as they are when it is called. tell: called by `check`, `save` and the end of
    the block, in their thread, once for each save that ended.
    """

    def __init__(
        self,
        folder: Path,
        updater: Updater,
        options: CheckpointConfig,
        extra: Callable[[], Mapping[str, Tensor]],
        on_report: Callable[[SaveReport], None],
    ) -> None:
        self.folder, self.updater, self.options, self.extra, self.on_report = folder, updater, options, extra, on_report
        self.saved_step: int | None = None  # of the newest checkpoint that this saver published and verified
        self.requested_step: int | None = None  # of the newest save that was asked for
        self._pool = ThreadPoolExecutor(1, "checkpoint") if options.asynchronous else None
        self._host = HostCopy()
        self._pending: Future[SaveReport] | None = None
        self._failed: list[SaveReport] = []  # in a row

    @property
    def failed(self) -> bool:
        """Whether the last finished save failed."""
        return bool(self._failed)

    def save(self, state: State, best_step: int | None = None) -> None:
        """Write a checkpoint now, or copy it and write in the background. Waits for a running save.

        best_step: step of the best validation loss, whose checkpoint is kept; None: no evaluation yet.
        Raises CheckpointError for weights that are not finite; FileError after `MAX_FAILURES` failed saves in a row.
        """
        begin = time.perf_counter()
        self.wait()
        contents, flags = contents_of(self.updater, self.extra()), finite_flags(self.updater.weights)
        if self._pool is not None:
            contents, flags = self._host.of(contents, flags)
        refuse_nonfinite(self.updater.weights, f"the weights after step {state.step}", flags)
        self.requested_step = state.step
        if self._pool is None:
            self._end(self._written(contents, state, best_step, begin, None))
        else:
            stalled = time.perf_counter() - begin
            self._pending = self._pool.submit(self._written, contents, state, best_step, begin, stalled)

    def refused(self, step: int, error: PlanError) -> None:
        """Count a save that could not begin: what must be on the disk before it was refused. Tells of it.

        Raises FileError after `MAX_FAILURES` failed saves in a row.
        """
        self._end(SaveReport(step, None, 0.0, 0.0, error))

    def check(self) -> None:
        """Report a save that has ended. Raises FileError after `MAX_FAILURES` failed saves in a row."""
        if self._pending is not None and self._pending.done():
            self.wait()

    def wait(self) -> None:
        """Wait until no save is running, for example before a rollback, and report it. Raises as `check`."""
        if self._pending is not None:
            pending, self._pending = self._pending, None
            self._end(pending.result())

    def _end(self, report: SaveReport) -> None:
        self.on_report(report)
        if report.error is None:
            self.saved_step, self._failed = report.step, []
            return
        self._failed.append(report)
        if len(self._failed) >= MAX_FAILURES:
            raise FileError(
                f"{len(self._failed)} checkpoints in a row could not be written",
                why=report.error.why or report.error.what,
                remedy="free space or mend the permissions, then continue with --resume; earlier ones are untouched",
            ) from report.error

    def _written(
        self, contents: Contents, state: State, best_step: int | None, begin: float, stalled: float | None
    ) -> SaveReport:
        """Write and verify, then delete old checkpoints. It raises nothing: the report has the error."""
        started = time.perf_counter()

        def report(size: int | None, error: PlanError | None, notes: tuple[str, ...] = ()) -> SaveReport:
            now = time.perf_counter()
            return SaveReport(
                state.step, size, now - begin if stalled is None else stalled, now - started, error, notes
            )

        try:
            size = stored_bytes(write(self.folder, contents, state))
            return report(size, None, prune(self.folder, state.step, self.options, best_step).failed)
        except PlanError as error:
            return report(None, error)
        except Exception as error:  # whatever it is, it must not pass for a success nor end the training
            what = f"the checkpoint of step {state.step} could not be written to {self.folder}"
            return report(None, FileError(what, why=f"{type(error).__name__}: {error}"))

    def close(self) -> None:
        """Wait for the running save. Raises FileError if the last save failed."""
        if self._pool is not None:
            self._pool.shutdown(wait=True)
        self.wait()
        if self._failed:
            error = self._failed[-1].error
            assert error is not None
            raise error

    def __enter__(self) -> Saver:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if error is None:
            self.close()
            return
        if self._pool is not None:
            self._pool.shutdown(wait=True)
        if self._pending is not None:  # the error on its way is the one to be shown
            self.on_report(self._pending.result())
            self._pending = None
