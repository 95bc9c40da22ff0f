"""A running job: reads step results, logs them, applies the spike policy, evaluates, saves, rolls back."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path

from planner.counts.run import saves_in_background, tokens_per_step
from planner.counts.schedule_change import schedule_change
from planner.errors import FileError, PlanError
from planner.log import Log
from planner.units import LOSS_DIGITS, format_number
from reference_trainer.checkpoint.atomic import list_checkpoints, newest_valid
from reference_trainer.checkpoint.checkpoint import State, load, state_of
from reference_trainer.checkpoint.retention import delete_after
from reference_trainer.checkpoint.saver import Saver
from reference_trainer.device.device import Show, device_name
from reference_trainer.loop.evaluation import EvaluationProgress, evaluate
from reference_trainer.loop.save_log import SaveLog
from reference_trainer.metrics.log_window import LogWindow
from reference_trainer.metrics.metrics_file import MetricsFile
from reference_trainer.metrics.records import finite_or_none
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
    diverged: bool = False  # the error that ends the run is about its loss, so that what was measured is worth a report
    nonfinite_counter: NonFiniteCounter = field(init=False)
    saves: SaveLog = field(init=False)
    saver: Saver = field(init=False)

    def __post_init__(self) -> None:
        self.metrics_file = MetricsFile(self.directory.metrics)
        self.log_window = LogWindow(self.context, self.options, self.directory.event, self.log)
        self.nonfinite_counter = NonFiniteCounter(self.context.config.guard.nonfinite_limit)
        self.saves = SaveLog(self.directory, self.log)
        context, folder = self.context, self.directory.checkpoints
        tensors, background = context.spike_guard.tensors, saves_in_background(context.config)
        options = context.config.checkpoints.model_copy(update={"asynchronous": background})
        self.saver = Saver(folder, context.optimizer, options, tensors, self.saves.report)


def resume(job: RunningJob) -> None:
    """Load the newest valid checkpoint, and drop the metrics of later steps."""
    job.context.rollbacks = load_rollbacks(job.directory.rollbacks)
    path = newest_valid(job.directory.checkpoints, job.log)
    if path is None:
        job.log("the run stopped before its first checkpoint: it starts again from step 1")
    else:
        job.done = _load(job, path)
        job.log(f"continues after step {job.done}")
    job.saves.step = job.done
    job.directory.forget_after(job.done)
    job.log_window.restore(job.directory.metrics)


def _load(job: RunningJob, path: Path) -> int:
    """The step of a checkpoint, after loading its weights, optimizer state, spike-guard window and progress."""
    extra, new_schedule = job.context.spike_guard.tensors(), job.options.new_schedule
    loaded = load(path, job.context.optimizer, _state(job, 0), extra, job.log, new_schedule)
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


# --- step results -----------------------------------------------------------------------------------------------------


def handle_results(job: RunningJob, show: Show, evaluating: Callable[[], bool] | None) -> bool:
    """Read the pending steps and judge them; then roll back, or evaluate and log. Returns False after a rollback.

    evaluating: None if no evaluation is due; else a function that returns True when the evaluation must stop.
    Raises PlanError if the model has diverged or the rollback budget is spent.
    """
    results = job.pending.read()
    if any(_handle_spike(job, result) for result in results if result.spike) or _left_nonfinite(job, results):
        return False
    evaluation = evaluate_now(job, evaluating) if evaluating is not None and results else None
    _log_results(job, results, evaluation, show)
    for result in results:
        _stop_if_diverged(job, result)
    if evaluation is not None:
        log_evaluation(job, evaluation)
    return True


def _handle_spike(job: RunningJob, spike: StepResult) -> bool:
    """Log a spike. Returns True if it led to a rollback.

    Only a loss spike does: a spike of the gradient norm alone was clipped.
    """
    guard = job.context.config.guard
    numbers = f"loss {format_number(spike.loss)}, gradient norm {format_number(spike.grad_norm)}"
    update = "applied" if spike.updated else "skipped"
    job.directory.event("spike", step=spike.step, loss_sigmas=spike.loss_sigmas, norm_sigmas=spike.norm_sigmas)
    job.log(f"step {spike.step}: spike ({numbers}); the update was {update}, policy: {guard.on_spike}")
    return guard.on_spike == "rollback" and spike.loss_sigmas > guard.spike_sigmas and _roll_back(job, spike.step)


def _left_nonfinite(job: RunningJob, results: Sequence[StepResult]) -> bool:
    """Whether so many steps in a row were not finite that the policy `rollback` led back past their data."""
    if job.context.config.guard.on_spike != "rollback":
        return False
    step = job.nonfinite_counter.limit_reached(results)
    if step is None or not _roll_back(job, step):
        return False
    job.nonfinite_counter.in_a_row = job.progress.nonfinite_in_a_row = 0  # a checkpoint may lie among these steps
    return True


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Validation loss in nats per token, and the seconds it took."""

    loss: float
    seconds: float


def evaluate_now(job: RunningJob, evaluating: Callable[[], bool]) -> Evaluation | None:
    """The validation loss after the last step; None if a signal stopped the evaluation."""
    begin = time.perf_counter()
    with job.pending.outside_window():
        loss = evaluate(job.context, evaluating)
    return None if loss is None else Evaluation(loss, time.perf_counter() - begin)


def _log_results(job: RunningJob, results: Sequence[StepResult], evaluation: Evaluation | None, show: Show) -> None:
    """Write one row per step to metrics.jsonl and the trackers; the validation loss is in the last step's row."""
    loss = None if evaluation is None else evaluation.loss
    rows = job.log_window.rows(results, job.pending.window_seconds, loss)
    for result, row in zip(results, rows, strict=True):
        job.results.append(result)
        job.metrics_file.add(row)
        for message in job.trackers.log(row) if job.trackers is not None else ():
            job.log(message)
        show(result.step, result.loss, result.seconds)
    refused = job.metrics_file.write()
    if refused and not job.metrics_file.refused:
        job.log(f"metrics.jsonl cannot be written ({refused}); the rows stay in memory and training continues")
    job.metrics_file.refused = refused


def _stop_if_diverged(job: RunningJob, result: StepResult) -> None:
    """Log an update that was skipped. Raises PlanError after too many steps in a row that were not finite."""
    step = result.step
    if not result.updated and not result.spike:
        job.directory.event("update skipped", step=step, loss=str(result.loss), grad_norm=str(result.grad_norm))
        job.log(f"step {step}: loss {result.loss}, gradient norm {result.grad_norm}; the update was skipped")
    try:
        job.nonfinite_counter.add(step, result.loss, result.grad_norm, result.scale)
    except PlanError as error:
        job.diverged = True
        job.directory.event("diverged", step=step, message=error.what)
        if not job.saves.step and not list_checkpoints(job.directory.checkpoints):
            error.why = "none of these updates was applied, but no checkpoint was written: nothing can be resumed"
            error.remedy = "start again with a lower --peak-lr or a longer warm-up, and with --checkpoint-every STEPS"
        raise
    job.progress.nonfinite_in_a_row = job.nonfinite_counter.in_a_row


def log_evaluation(job: RunningJob, evaluation: Evaluation) -> None:
    loss, seconds = evaluation.loss, evaluation.seconds
    best = job.progress.add(job.done, loss)
    job.directory.event("evaluation", step=job.done, loss=finite_or_none(loss), best=best, seconds=seconds)
    job.log(f"step {job.done}: validation loss {format_number(loss, LOSS_DIGITS)}{', the best so far' if best else ''}")
    if best:
        save_checkpoint(job)


def stops_early(job: RunningJob) -> bool:
    """Whether `evaluation.patience` evaluations in a row brought no better loss."""
    patience = job.context.config.evaluation.patience
    return patience is not None and job.progress.since_best >= patience


# --- rollback and saving ----------------------------------------------------------------------------------------------


def _roll_back(job: RunningJob, spike_step: int) -> bool:
    """Return to the newest valid checkpoint before `spike_step`; False if there is none.

    Raises PlanError if the rollback budget is spent.
    """
    with job.pending.outside_window():
        job.saver.wait()
        path = newest_valid(job.directory.checkpoints, job.log)
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
    save_rollbacks(job.directory.rollbacks, (*before, rollback))
    job.context.rollbacks = (*before, rollback)
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


def save_checkpoint(job: RunningJob) -> None:
    """Save the last step, unless that was already requested. A save that fails is logged later, by `SaveLog`.

    Raises CheckpointError if weights are not finite, FileError after too many failed saves in a row.
    """
    if job.done in (job.saves.step, job.saver.requested_step):
        return
    with job.pending.outside_window():
        try:
            job.metrics_file.sync()  # a checkpoint must not be newer than the metrics
        except FileError as error:
            job.saver.wait()
            job.saver.refused(job.done, error)
            return
        job.saver.save(_state(job, job.done), job.progress.best_step)


def save_last_checkpoint(job: RunningJob) -> None:
    """Save the last step; one more try if its save failed. The saver raises when it ends if this fails too."""
    job.saver.wait()
    if job.saves.step == job.done:
        return
    job.metrics_file.sync()
    job.saver.save(_state(job, job.done), job.progress.best_step)
