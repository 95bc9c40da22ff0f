"""Writes the checkpoints of a run, in the loop or beside it.

    save     [wait for the save in flight] → copy to the host → (thread:) write, hash, publish, read back → delete old
    check    what became of the saves that ended since; in the training thread, which alone tells of them

An asynchronous save copies every tensor to host memory before it returns, so that what is written is of its step
however far training is by then. That memory, as large as a checkpoint, is taken at the first save and kept; on CUDA it
is pinned. A save that fails is reported and training goes on, for the disk may have room at the next one; after
`MAX_FAILURES` in a row it stops.
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
    """What became of a save. `error`: why there is no checkpoint; None: it is published and verified.

    stalled_seconds: training stood still for it. write_seconds: what the writing took, perhaps beside training.
    notes: a sentence for each old checkpoint that could not be deleted.
    """

    step: int
    size_bytes: int | None
    stalled_seconds: float
    write_seconds: float
    error: PlanError | None
    notes: tuple[str, ...] = ()


class HostCopy:
    """Host memory for the tensors of a checkpoint: one block, pinned where they are on a GPU, used again and again."""

    def __init__(self) -> None:
        self._block = torch.empty(0, dtype=torch.uint8)

    def of(self, contents: Contents, flags: Tensor) -> tuple[Contents, Tensor]:
        """Copies of all tensors and of `flags`, complete when it returns; those of the call before are overwritten."""
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
    """Where each begins in one block of bytes, aligned; the block's size is the last."""
    places = [0]
    for t in tensors:
        places.append(places[-1] + math.ceil(t.numel() * t.element_size() / ALIGNMENT) * ALIGNMENT)
    return places


class Saver:
    """The checkpoints of one run, for as long as the `with` block lasts: at its end none is left in flight.

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
        """Whether the newest save that ended has failed."""
        return bool(self._failed)

    def save(self, state: State, best_step: int | None = None) -> None:
        """Write a checkpoint: at once, or its copy while training goes on. Waits for the save in flight, if any.

        best_step: of the best validation loss, whose checkpoint is kept; None: there is none.
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

    def check(self) -> None:
        """Tell of a save that has ended. Raises FileError after `MAX_FAILURES` failed saves in a row."""
        if self._pending is not None and self._pending.done():
            self.wait()

    def wait(self) -> None:
        """Until no save is in flight, as before a rollback; tells of it. Raises as `check`."""
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
        """Publish, verify, and only then delete what need not stay. It raises nothing: the report says what failed."""
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
        """Wait for the save in flight. Raises FileError where the newest save asked for has failed."""
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
