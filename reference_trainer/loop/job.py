"""A run in progress: what its steps left to be read, written down and judged; saves, evaluations, rollbacks."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path

from planner.counts.run import tokens_per_step
from planner.errors import FileError, PlanError
from planner.log import Log
from planner.units import format_number
from reference_trainer.checkpoint.atomic import newest_valid
from reference_trainer.checkpoint.checkpoint import State, load, state_of
from reference_trainer.checkpoint.retention import drop_after
from reference_trainer.checkpoint.saver import Report, Saver
from reference_trainer.device.device import Show, device_name
from reference_trainer.loop.eval_command import TIMEOUT, limit, run_command
from reference_trainer.loop.evaluation import Progress, evaluate
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
    """A running job. `done`: steps of the run so far; `results`: the steps of this call that were read, in order."""

    context: StepContext
    here: RunDirectory
    options: RunOptions
    log: Log
    done: int = 0
    saved_step: int = 0
    checkpoint_bytes: int | None = None
    results: list[StepResult] = field(default_factory=list)
    pending: PendingSteps = field(default_factory=PendingSteps)
    progress: Progress = field(default_factory=Progress)
    metrics_file: MetricsFile = field(init=False)
    log_window: LogWindow = field(init=False)
    trackers: Trackers | None = None
    eval_command_step: int = 0
    nonfinite_counter: NonFiniteCounter = field(init=False)
    saver: Saver = field(init=False)

    def __post_init__(self) -> None:
        self.metrics_file = MetricsFile(self.here.metrics)
        self.log_window = LogWindow(self.context, self.options, self.here.event, self.log)
        self.nonfinite_counter = NonFiniteCounter(self.context.config.guard.nonfinite_limit)
        options, context = self.context.config.checkpoints, self.context
        self.saver = Saver(self.here.checkpoints, context.optimizer, options, context.spike_guard.tensors, self.saved)

    def saved(self, report: Report) -> None:
        """Log what became of a save."""
        if report.error is not None:
            self.here.event("checkpoint failed", step=report.step, message=report.error.message())
            self.log(f"{report.error.message()}\n  training goes on from the weights in memory")
            return
        self.saved_step, self.checkpoint_bytes = report.step, report.size_bytes
        self.here.event(
            "checkpoint",
            step=report.step,
            bytes=report.size_bytes,
            seconds=report.write_seconds,
            stalled_seconds=report.stalled_seconds,
        )
        for note in report.notes:
            self.log(note)


def resume(job: RunningJob) -> None:
    """Load the newest whole checkpoint, and drop the metrics of later steps."""
    job.context.rollbacks = load_rollbacks(job.here.rollbacks)
    path = newest_valid(job.here.checkpoints, job.log)
    if path is None:
        job.log("the run stopped before its first checkpoint: it begins again")
    else:
        job.done = _load(job, path)
        job.log(f"continues after step {job.done}")
    job.saved_step = job.done
    job.here.forget_after(job.done)
    job.log_window.restore(job.here.metrics)


def _load(job: RunningJob, path: Path) -> int:
    """The step of a checkpoint, after weights, moments, the guard's window and the progress are as they were then."""
    extra, new_schedule = job.context.spike_guard.tensors(), job.options.new_schedule
    found = load(path, job.context.optimizer, _state(job, 0), extra, job.log, new_schedule)
    known = {f.name for f in fields(Progress)}
    job.progress = Progress(**{key: value for key, value in found.progress.items() if key in known})  # type: ignore[arg-type]
    job.nonfinite_counter.in_a_row = job.progress.nonfinite_in_a_row
    return found.step


def _state(job: RunningJob, step: int) -> State:
    config, context = job.context.config, job.context
    tokens, device = step * tokens_per_step(config), device_name(context.device)
    return state_of(config, context.data.fingerprint, step, tokens, asdict(job.progress), device)


def handle_results(job: RunningJob, show: Show, evaluating: Callable[[], bool] | None) -> bool:
    """Read what the steps left, evaluate if asked to, write all down and judge it; False after a rollback.

    evaluating: None where no evaluation is due, else what breaks it off.
    Raises PlanError for a diverged model or a spent budget of rollbacks.
    """
    steps = job.pending.read()
    for spike in (step for step in steps if step.spike):
        if _answer_spike(job, spike):
            return False
    # the loss of the last step's weights stands in the last step's row
    begin = time.perf_counter()
    held_out = evaluate(job.context, evaluating) if evaluating is not None and steps else None
    evaluation_seconds = time.perf_counter() - begin
    for step, row in zip(steps, job.log_window.rows(steps, job.pending.window_seconds, held_out), strict=True):
        job.results.append(step)
        job.metrics_file.add(row)
        for messages in job.trackers.log(row) if job.trackers is not None else ():
            job.log(messages)
        show(step.step, step.loss, step.seconds)
    _write(job)
    for step in steps:
        _stop_if_diverged(job, step)
    if held_out is not None:
        _note_evaluation(job, held_out, evaluation_seconds)
    return True


def _answer_spike(job: RunningJob, spike: StepResult) -> bool:
    """Tell of a spike; True where it led to a rollback, which a loss alone does: clipping has tamed the gradient."""
    guard = job.context.config.guard
    told = f"loss {format_number(spike.loss)}, gradient norm {format_number(spike.grad_norm)}"
    answer = "the update was applied" if spike.updated else "the update was left out"
    job.here.event("spike", step=spike.step, loss_sigmas=spike.loss_sigmas, norm_sigmas=spike.norm_sigmas)
    job.log(f"step {spike.step}: a spike, {told}: {answer}; policy: {guard.on_spike}")
    harmed = guard.on_spike == "rollback" and spike.loss_sigmas > guard.spike_sigmas
    return harmed and _roll_back(job, spike.step)


def _write(job: RunningJob) -> None:
    refused = job.metrics_file.write()
    if refused and not job.metrics_file.refused:
        job.log(f"the metrics cannot be written ({refused}): they are kept, and training goes on")
    job.metrics_file.refused = refused


def _stop_if_diverged(job: RunningJob, step: StepResult) -> None:
    if not step.updated and not step.spike:
        job.here.event("update skipped", step=step.step, loss=str(step.loss), grad_norm=str(step.grad_norm))
        told = f"loss {step.loss}, gradient norm {step.grad_norm}"
        job.log(f"step {step.step}: {told}: the weights are left as they were")
    try:
        job.nonfinite_counter.add(step.step, step.loss, step.grad_norm, step.scale)
    except PlanError as error:
        job.here.event("diverged", step=step.step, message=error.what)
        raise
    job.progress.nonfinite_in_a_row = job.nonfinite_counter.in_a_row


def _note_evaluation(job: RunningJob, loss: float, seconds: float) -> None:
    best = job.progress.add(job.done, loss)
    job.here.event("evaluation", step=job.done, loss=finite_or_none(loss), best=best, seconds=seconds)
    job.log(f"step {job.done}: validation loss {format_number(loss)}{', the best so far' if best else ''}")
    if best:
        save_checkpoint(job)


def run_eval_command(job: RunningJob, stopping: Callable[[], bool]) -> None:
    """Run the user's command on this step, once, and write down what it says; whatever it does, training goes on."""
    command = job.options.eval_command
    if command is None or job.eval_command_step == job.done or stopping():
        return
    job.eval_command_step = job.done
    tokens = job.done * tokens_per_step(job.context.config)
    seconds = job.options.eval_timeout or TIMEOUT
    found = run_command(command, job.here.root, job.done, tokens, limit(seconds, stopping))
    if found.problem:
        job.here.event("eval command failed", step=job.done, message=found.problem, seconds=found.seconds)
        job.log(f"step {job.done}: the eval command failed, {found.problem}; training goes on")
        return
    job.here.event("eval command", step=job.done, numbers=found.numbers, seconds=found.seconds)
    job.log(f"step {job.done}: {', '.join(f'{name} {format_number(value)}' for name, value in found.numbers.items())}")
    if job.trackers is not None:
        job.trackers.log({"step": job.done} | {f"eval/{name}": value for name, value in found.numbers.items()})


def stops_early(job: RunningJob) -> bool:
    """Whether so many evaluations in a row brought no better loss that the config wants to stop."""
    patience = job.context.config.evaluation.patience
    return patience is not None and job.progress.since_best >= patience


def _roll_back(job: RunningJob, spike_step: int) -> bool:
    """Return to the newest whole checkpoint before `spike_step`; False where there is none.

    Raises PlanError when the budget is spent.
    """
    guard, before = job.context.config.guard, job.context.rollbacks
    job.saver.wait()
    path = newest_valid(job.here.checkpoints, job.log)
    if path is None:
        job.log("there is no checkpoint to go back to: the update was left out, and training goes on")
        return False
    try:
        to_step = _load(job, path)
        rollback = next_rollback(guard, before, spike_step, to_step)
    except PlanError as error:
        job.here.event("stopped", step=spike_step, message=error.what)
        raise
    save_rollbacks(job.here.rollbacks, (*before, rollback))
    job.context.rollbacks = (*before, rollback)
    drop_after(job.here.checkpoints, to_step)
    job.done = job.saved_step = to_step
    job.saver.asked_step = None  # a step that is taken again is another one
    job.metrics_file.forget_pending()
    job.here.forget_after(to_step)
    job.log_window.restore(job.here.metrics)
    job.results = [step for step in job.results if step.step <= to_step]
    job.here.event("rollback", step=to_step, spike_step=spike_step, skipped_steps=rollback.skipped_steps)
    job.log(f"back to step {to_step}; the data of {rollback.skipped_steps} steps is passed by")
    return True


# --- saving -----------------------------------------------------------------------------------------------------------


def save_checkpoint(job: RunningJob) -> None:
    """Write the checkpoint of the last step, unless it was asked for already. A disk that refuses is told of later.

    Raises CheckpointError for weights that are not finite, FileError after too many failed saves in a row.
    """
    if job.done in (job.saved_step, job.saver.asked_step):
        return
    try:
        job.metrics_file.sync()  # no checkpoint may know of a step that the metrics do not
    except FileError as error:
        job.here.event("checkpoint failed", step=job.done, message=error.message())
        job.log(f"{error.message()}\n  training goes on from the weights in memory")
        return
    job.saver.save(_state(job, job.done), job.progress.best_step)


def save_last_checkpoint(job: RunningJob) -> None:
    """As `save_checkpoint`, once more where the last step's has failed; the saver's end raises where it fails again."""
    job.saver.wait()
    if job.saved_step == job.done:
        return
    job.metrics_file.sync()
    job.saver.save(_state(job, job.done), job.progress.best_step)
