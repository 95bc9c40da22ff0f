"""A running job: its state, how it resumes, rolls back and saves. results.py reads, judges and records its steps."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from pathlib import Path

from planner.activity import doing
from planner.counts.run import saves_in_background, tokens_per_step
from planner.counts.schedule_change import schedule_change
from planner.errors import FileError, PlanError
from planner.log import Log
from reference_trainer.checkpoint.atomic import newest_valid
from reference_trainer.checkpoint.checkpoint import State, load, part_of, state_of
from reference_trainer.checkpoint.retention import delete_after
from reference_trainer.checkpoint.saver import Saver
from reference_trainer.device.device import device_name
from reference_trainer.device.os_signals import StopSignals
from reference_trainer.distributed.requests import Requests
from reference_trainer.distributed.sharding import forget_gathered
from reference_trainer.loop.evaluation import EvaluationProgress
from reference_trainer.loop.save_log import SaveLog
from reference_trainer.metrics.log_window import LogWindow
from reference_trainer.metrics.metrics_file import MetricsFile
from reference_trainer.metrics.run_directory import RunDirectory
from reference_trainer.metrics.trackers import Trackers
from reference_trainer.step.options import RunOptions
from reference_trainer.step.rollbacks import load_rollbacks, next_rollback, save_rollbacks
from reference_trainer.step.spike_guard import NonFiniteCounter
from reference_trainer.step.step import StepContext
from reference_trainer.step.step_results import PendingSteps, StepResult


@dataclass(slots=True)
class RunningJob:
    """The state of the training loop. `done`: steps of the run so far; `results`: steps read in this call, in order."""

    context: StepContext
    directory: RunDirectory
    options: RunOptions
    log: Log
    done: int = 0
    results: list[StepResult] = field(default_factory=list)
    pending: PendingSteps = field(default_factory=PendingSteps)
    progress: EvaluationProgress = field(default_factory=EvaluationProgress)
    metrics_file: MetricsFile = field(init=False)
    log_window: LogWindow = field(init=False)
    trackers: Trackers | None = None
    eval_command_step: int = 0
    kernels_logged: bool = False
    diverged: bool = False  # the error that ends the run is about its loss, so that what was measured is worth a report
    requests: Requests = field(default_factory=lambda: Requests(StopSignals()))
    nonfinite_counter: NonFiniteCounter = field(init=False)
    saves: SaveLog = field(init=False)
    saver: Saver = field(init=False)

    def __post_init__(self) -> None:
        ranks = self.context.ranks
        self.context.with_loss = self.requests.with_loss
        self.metrics_file = MetricsFile(self.directory.metrics, writes=ranks.leads)
        self.log_window = LogWindow(self.context, self.options, self.directory.event, self.log)
        self.nonfinite_counter = NonFiniteCounter(self.context.config.guard.nonfinite_limit)
        self.saves = SaveLog(self.directory, self.log)
        context, folder = self.context, self.directory.checkpoints
        tensors, background = context.spike_guard.tensors, saves_in_background(context.config)
        options = context.config.checkpoints.model_copy(update={"asynchronous": background})
        part = part_of(context.model, ranks)
        self.saver = Saver(folder, context.optimizer, options, tensors, self.saves.report, part)


def resume(job: RunningJob) -> None:
    """Load the newest valid checkpoint, and drop the metrics of later steps."""
    job.context.rollbacks = load_rollbacks(job.directory.rollbacks)
    path = _newest(job)
    if path is None:
        job.log("the run stopped before its first checkpoint: it starts again from step 1")
    else:
        job.done = _load(job, path)
        job.log(f"continues after step {job.done}")
    job.saves.step = job.done
    job.context.ranks.wait()  # all have read what is there
    job.directory.forget_after(job.done)
    job.log_window.restore(job.directory.metrics)


def _newest(job: RunningJob) -> Path | None:
    """The newest valid checkpoint, which the leader reads to the end; None if there is none."""
    ranks, folder = job.context.ranks, job.directory.checkpoints
    path = newest_valid(folder, job.log) if ranks.leads else None
    name = ranks.share("-" if path is None else path.name)
    return None if name == "-" else folder / name


def _load(job: RunningJob, path: Path) -> int:
    """The step of a checkpoint, after loading its weights, optimizer state, spike-guard window and progress."""
    extra, new_schedule = job.context.spike_guard.tensors(), job.options.new_schedule
    loaded = load(path, job.context.optimizer, _state(job, 0), extra, job.log, new_schedule)
    forget_gathered(job.context.model)
    jump = schedule_change(loaded.settings, job.context.config, loaded.step + 1) if new_schedule else None
    if jump is not None:
        job.log(jump)
    known = {f.name for f in fields(EvaluationProgress)}
    job.progress = EvaluationProgress(**{key: value for key, value in loaded.progress.items() if key in known})  # type: ignore[arg-type]
    if "evaluated_step" not in loaded.progress:  # of an older version: whatever was due is taken for done
        job.progress.evaluated_step = loaded.step
    job.nonfinite_counter.in_a_row = job.progress.nonfinite_in_a_row
    return loaded.step


def _state(job: RunningJob, step: int) -> State:
    config, context = job.context.config, job.context
    tokens, device = step * tokens_per_step(config), device_name(context.device)
    return state_of(config, context.data.fingerprint, step, tokens, asdict(job.progress), device)


# --- rollback and saving ----------------------------------------------------------------------------------------------


def roll_back(job: RunningJob, spike_step: int) -> bool:
    """Return to the newest valid checkpoint before `spike_step`; False if there is none.

    Raises PlanError if the rollback budget is spent.
    """
    with job.pending.outside_window(), job.context.moves.working():
        job.saver.wait()
        path = _newest(job)
        if path is None:
            job.log("there is no checkpoint to roll back to: the update was skipped and training continues")
            return False
        _return_to(job, path, spike_step)
    return True


def _return_to(job: RunningJob, path: Path, spike_step: int) -> None:
    """Load a checkpoint and forget the steps after it: in the metrics, the checkpoints and the results."""
    before = job.context.rollbacks
    try:
        to_step = _load(job, path)
        rollback = next_rollback(job.context.config.guard, before, spike_step, to_step)
    except PlanError as error:
        job.diverged = True
        job.directory.event("stopped", step=spike_step, message=error.what)
        raise
    job.context.ranks.wait()  # all have read it
    job.context.rollbacks = (*before, rollback)
    if job.context.ranks.leads:
        save_rollbacks(job.directory.rollbacks, (*before, rollback))
        delete_after(job.directory.checkpoints, to_step)
    job.done = job.saves.step = to_step
    job.eval_command_step = min(job.eval_command_step, to_step)  # the steps after it are judged again
    job.saver.requested_step = None  # the step will be trained again, with other data, and needs its own checkpoint
    job.metrics_file.forget_pending()
    job.directory.forget_after(to_step)
    job.log_window.restore(job.directory.metrics)
    job.results = [result for result in job.results if result.step <= to_step]
    job.directory.event("rollback", step=to_step, spike_step=spike_step, skipped_steps=rollback.skipped_steps)
    job.log(f"rolled back to step {to_step}; the data of {rollback.skipped_steps} steps is skipped")


@doing("saving a checkpoint")
def save_checkpoint(job: RunningJob) -> None:
    """Save the last step, unless that was already requested. A save that fails is logged later, by `SaveLog`.

    Raises CheckpointError if weights are not finite, FileError after too many failed saves in a row.
    """
    if job.done in (job.saves.step, job.saver.requested_step):
        return
    with job.pending.outside_window(), job.context.moves.working():
        try:
            job.metrics_file.sync()  # a checkpoint must not be newer than the metrics
        except FileError as error:
            job.saver.wait()
            job.saver.refused(job.done, error)
            return
        job.saver.save(_state(job, job.done), job.progress.best_step)


@doing("saving the last checkpoint")
def save_last_checkpoint(job: RunningJob) -> None:
    """Save the last step; one more try if its save failed. The saver raises when it ends if this fails too."""
    with job.context.moves.working():
        job.saver.wait()
        if job.saves.step == job.done:
            return
        job.metrics_file.sync()
        job.saver.save(_state(job, job.done), job.progress.best_step)
