"""Writes the checkpoints of a run, in the training thread or in the background.

    save     [wait for the save in flight] → copy to the host → (thread:) write, hash, publish, read back → delete old
    check    report the saves that have ended, in the training thread

An asynchronous save copies every tensor to host memory before it returns, so the checkpoint has the weights of its step
even while training continues. That memory, as large as a checkpoint, is allocated at the first save and reused; on CUDA
it is page-locked. A failed save, also one for which there is no memory, is reported and training continues, since
there may be room later. After `MAX_FAILURES` in a row training stops.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from torch import Tensor

from planner.config.loop import CheckpointConfig
from planner.errors import FileError, PlanError
from reference_trainer.checkpoint.atomic import stored_bytes
from reference_trainer.checkpoint.checkpoint import (
    WHOLE_CHECKPOINT,
    CheckpointPart,
    Contents,
    State,
    contents_of,
    finite_flags,
    refuse_nonfinite,
    write,
)
from reference_trainer.checkpoint.host_copy import HostCopy
from reference_trainer.checkpoint.retention import prune
from reference_trainer.device.out_of_memory import is_shortage
from reference_trainer.optim.updater import Updater

MAX_FAILURES = 3  # in a row: by then a disk that was full for a moment has been emptied, or nobody is there to do it


@dataclass(frozen=True, slots=True)
class SaveReport:
    """The result of a save. `error`: why there is no checkpoint; None: it was written and verified.

    stalled_seconds: how long training waited. write_seconds: duration of the write, perhaps in the background.
    notes: a message for each old checkpoint that could not be deleted, and for host memory that is not page-locked.
    """

    step: int
    size_bytes: int | None
    stalled_seconds: float
    write_seconds: float
    error: PlanError | None
    notes: tuple[str, ...] = ()


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
        part: CheckpointPart = WHOLE_CHECKPOINT,
    ) -> None:
        """part: which part of a checkpoint this process writes."""
        self.part = part
        self.takes_part = part.writes or part.is_shared
        self.folder, self.updater, self.options, self.extra, self.on_report = folder, updater, options, extra, on_report
        self.saved_step: int | None = None  # of the newest checkpoint that this saver published and verified
        self.requested_step: int | None = None  # of the newest save that was asked for
        self._pool = ThreadPoolExecutor(1, "checkpoint") if options.asynchronous and self.takes_part else None
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
        if not self.takes_part:  # the first rank writes the same tensors
            self.requested_step = state.step
            return
        try:
            contents, flags = contents_of(self.updater, self.extra()), finite_flags(self.updater.weights)
            if self._pool is not None:
                contents, flags = self._host.of(contents, flags)
        except RuntimeError as error:
            if not is_shortage(error):
                raise
            self._end(SaveReport(state.step, None, time.perf_counter() - begin, 0.0, self._no_memory(state, error)))
            return
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

    def _no_memory(self, state: State, error: RuntimeError) -> FileError:
        where = "with the weights" if self._pool is None else "in the background"
        return FileError(
            f"the checkpoint of step {state.step} could not be saved {where}",
            why=str(error).strip().partition("\n")[0],
            remedy="free memory of the host and the device; checkpoints.asynchronous = false needs no copy on the host",
        )

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
            size = stored_bytes(write(self.folder, contents, state, self.part))
            notes = prune(self.folder, state.step, self.options, best_step).failed if self.part.ranks.leads else ()
            note, self._host.note = self._host.note, None
            return report(size, None, notes if note is None else (*notes, note))
        except PlanError as error:
            return report(None, error)
        except Exception as error:  # whatever it is, it must not pass for a success nor end the training
            what = f"the checkpoint of step {state.step} could not be written to {self.folder}"
            return report(None, FileError(what, why=f"{type(error).__name__}: {error}"))

    def close(self) -> None:
        """Wait for the running save. Raises FileError if the last save failed."""
        if self._pool is not None:
            self._pool.shutdown(wait=True)
        self._host.free()
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
        self._host.free()
        if self._pending is not None:  # the error on its way is the one to be shown
            self.on_report(self._pending.result())
            self._pending = None
