"""What is known of a run's saves: the step of the newest checkpoint and its size. Logs each save that ended.

It knows neither the running job nor the saver, which both refer to it: a cycle of references would keep the model in
memory after the run, until Python's collector happens to come by.
"""

from __future__ import annotations

from dataclasses import dataclass

from planner.errors import PlanError
from planner.log import Log
from reference_trainer.checkpoint.saver import SaveReport
from reference_trainer.metrics.run_directory import RunDirectory


@dataclass(slots=True)
class SaveLog:
    """`step`: of the newest checkpoint, written or loaded; `size_bytes`: of the last that was written in this call."""

    directory: RunDirectory
    log: Log
    step: int = 0
    size_bytes: int | None = None

    def report(self, report: SaveReport) -> None:
        """Log the result of a save."""
        if report.error is not None:
            self._failed(report.step, report.error)
            return
        self.step, self.size_bytes = report.step, report.size_bytes
        self.directory.event(
            "checkpoint",
            step=report.step,
            bytes=report.size_bytes,
            seconds=report.write_seconds,
            stalled_seconds=report.stalled_seconds,
        )
        for note in report.notes:
            self.log(note)

    def _failed(self, step: int, error: PlanError) -> None:
        """Log a save that failed. Training continues: the weights are still in memory."""
        self.directory.event("checkpoint failed", step=step, message=error.message())
        self.log(f"{error.message()}\n  training continues with the weights in memory")
