"""A run in progress: what its steps left to be read, written down and judged; saves, evaluations, rollbacks."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path

from planner.counts.run import tokens_per_step
from planner.errors import FileError, PlanError
from planner.units import format_number
from reference_trainer.checkpoint.atomic import newest_valid
from reference_trainer.checkpoint.checkpoint import State, load, state_of
from reference_trainer.checkpoint.retention import drop_after
from reference_trainer.checkpoint.saver import Report, Saver
from reference_trainer.device.device import Show, device_name
from reference_trainer.loop.eval_command import TIMEOUT, limit, run_command
from reference_trainer.loop.evaluation import Progress, evaluate
from reference_trainer.metrics.log_window import Meters
from reference_trainer.metrics.metrics_file import Journal
from reference_trainer.metrics.records import finite
from reference_trainer.metrics.run_directory import RunDirectory
from reference_trainer.metrics.trackers import Trackers
from reference_trainer.step.options import RunOptions
from reference_trainer.step.rollbacks import load_rollbacks, planned, save_rollbacks
from reference_trainer.step.spike_guard import Streak
from reference_trainer.step.step import Work
from reference_trainer.step.step_results import Readings, Step


@dataclass(slots=True)
class Job:
    """What the loop works on. `done`: steps of the run so far; `log`: those of this call that are read, in order."""

    work: Work
    here: RunDirectory
    options: RunOptions
    say: Callable[[str], None]
    done: int = 0
    saved_step: int = 0
    checkpoint_bytes: int | None = None
    log: list[Step] = field(default_factory=list)
    readings: Readings = field(default_factory=Readings)
    progress: Progress = field(default_factory=Progress)
    journal: Journal = field(init=False)
    meters: Meters = field(init=False)
    trackers: Trackers | None = None
    judged_step: int = 0
    streak: Streak = field(init=False)
    saver: Saver = field(init=False)

    def __post_init__(self) -> None:
        self.journal = Journal(self.here.metrics)
        self.meters = Meters(self.work, self.options, self.here.event, self.say)
        self.streak = Streak(self.work.config.guard.nonfinite_limit)
        options, work = self.work.config.checkpoints, self.work
        self.saver = Saver(self.here.checkpoints, work.optimizer, options, work.gate.tensors, self.saved)

    def saved(self, report: Report) -> None:
        """Log what became of a save."""
        if report.error is not None:
            self.here.event("checkpoint failed", step=report.step, message=report.error.message())
            self.say(f"{report.error.message()}\n  training goes on from the weights in memory")
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
            self.say(note)


def resume(job: Job) -> None:
    """Load the newest whole checkpoint, and drop the metrics of later steps."""
    job.work.rollbacks = load_rollbacks(job.here.rollbacks)
    path = newest_valid(job.here.checkpoints, job.say)
    if path is None:
        job.say("the run stopped before its first checkpoint: it begins again")
    else:
        job.done = _load(job, path)
        job.say(f"continues after step {job.done}")
    job.saved_step = job.done
    job.here.forget_after(job.done)
    job.meters.restore(job.here.metrics)


def _load(job: Job, path: Path) -> int:
    """The step of a checkpoint, after weights, moments, the guard's window and the progress are as they were then."""
    extra, new_schedule = job.work.gate.tensors(), job.options.new_schedule
    found = load(path, job.work.optimizer, _state(job, 0), extra, job.say, new_schedule)
    known = {f.name for f in fields(Progress)}
    job.progress = Progress(**{key: value for key, value in found.progress.items() if key in known})  # type: ignore[arg-type]
    job.streak.in_a_row = job.progress.nonfinite_in_a_row
    return found.step


def _state(job: Job, step: int) -> State:
    config, work = job.work.config, job.work
    tokens, device = step * tokens_per_step(config), device_name(work.device)
    return state_of(config, work.data.fingerprint, step, tokens, asdict(job.progress), device)


def take_readings(job: Job, show: Show, evaluating: Callable[[], bool] | None) -> bool:
    """Read what the steps left, evaluate if asked to, write all down and judge it; False after a rollback.

    evaluating: None where no evaluation is due, else what breaks it off.
    Raises PlanError for a diverged model or a spent budget of rollbacks.
    """
    steps = job.readings.read()
    for spike in (step for step in steps if step.spike):
        if _answer_spike(job, spike):
            return False
    # the loss of the last step's weights stands in the last step's row
    begin = time.perf_counter()
    held_out = evaluate(job.work, evaluating) if evaluating is not None and steps else None
    evaluation_seconds = time.perf_counter() - begin
    for step, row in zip(steps, job.meters.rows(steps, job.readings.window_seconds, held_out), strict=True):
        job.log.append(step)
        job.journal.add(row)
        for news in job.trackers.log(row) if job.trackers is not None else ():
            job.say(news)
        show(step.step, step.loss, step.seconds)
    _write(job)
    for step in steps:
        _stop_if_diverged(job, step)
    if held_out is not None:
        _note_evaluation(job, held_out, evaluation_seconds)
    return True


def _answer_spike(job: Job, spike: Step) -> bool:
    """Tell of a spike; True where it led to a rollback, which a loss alone does: clipping has tamed the gradient."""
    guard = job.work.config.guard
    told = f"loss {format_number(spike.loss)}, gradient norm {format_number(spike.grad_norm)}"
    answer = "the update was applied" if spike.updated else "the update was left out"
    job.here.event("spike", step=spike.step, loss_sigmas=spike.loss_sigmas, norm_sigmas=spike.norm_sigmas)
    job.say(f"step {spike.step}: a spike, {told}: {answer}; policy: {guard.on_spike}")
    harmed = guard.on_spike == "rollback" and spike.loss_sigmas > guard.spike_sigmas
    return harmed and _roll_back(job, spike.step)


def _write(job: Job) -> None:
    refused = job.journal.write()
    if refused and not job.journal.refused:
        job.say(f"the metrics cannot be written ({refused}): they are kept, and training goes on")
    job.journal.refused = refused


def _stop_if_diverged(job: Job, step: Step) -> None:
    if not step.updated and not step.spike:
        job.here.event("update skipped", step=step.step, loss=str(step.loss), grad_norm=str(step.grad_norm))
        told = f"loss {step.loss}, gradient norm {step.grad_norm}"
        job.say(f"step {step.step}: {told}: the weights are left as they were")
    try:
        job.streak.add(step.step, step.loss, step.grad_norm, step.scale)
    except PlanError as error:
        job.here.event("diverged", step=step.step, message=error.what)
        raise
    job.progress.nonfinite_in_a_row = job.streak.in_a_row


def _note_evaluation(job: Job, loss: float, seconds: float) -> None:
    best = job.progress.add(job.done, loss)
    job.here.event("evaluation", step=job.done, loss=finite(loss), best=best, seconds=seconds)
    job.say(f"step {job.done}: validation loss {format_number(loss)}{', the best so far' if best else ''}")
    if best:
        save(job)


def judge_by_command(job: Job, stopping: Callable[[], bool]) -> None:
    """Run the user's command on this step, once, and write down what it says; whatever it does, training goes on."""
    command = job.options.eval_command
    if command is None or job.judged_step == job.done or stopping():
        return
    job.judged_step = job.done
    tokens = job.done * tokens_per_step(job.work.config)
    seconds = job.options.eval_timeout or TIMEOUT
    found = run_command(command, job.here.root, job.done, tokens, limit(seconds, stopping))
    if found.problem:
        job.here.event("eval command failed", step=job.done, message=found.problem, seconds=found.seconds)
        job.say(f"step {job.done}: the eval command failed, {found.problem}; training goes on")
        return
    job.here.event("eval command", step=job.done, numbers=found.numbers, seconds=found.seconds)
    job.say(f"step {job.done}: {', '.join(f'{name} {format_number(value)}' for name, value in found.numbers.items())}")
    if job.trackers is not None:
        job.trackers.log({"step": job.done} | {f"eval/{name}": value for name, value in found.numbers.items()})


def stops_early(job: Job) -> bool:
    """Whether so many evaluations in a row brought no better loss that the config wants to stop."""
    patience = job.work.config.evaluation.patience
    return patience is not None and job.progress.since_best >= patience


def _roll_back(job: Job, spike_step: int) -> bool:
    """Return to the newest whole checkpoint before `spike_step`; False where there is none.

    Raises PlanError when the budget is spent.
    """
    guard, before = job.work.config.guard, job.work.rollbacks
    job.saver.wait()
    path = newest_valid(job.here.checkpoints, job.say)
    if path is None:
        job.say("there is no checkpoint to go back to: the update was left out, and training goes on")
        return False
    try:
        to_step = _load(job, path)
        rollback = planned(guard, before, spike_step, to_step)
    except PlanError as error:
        job.here.event("stopped", step=spike_step, message=error.what)
        raise
    save_rollbacks(job.here.rollbacks, (*before, rollback))
    job.work.rollbacks = (*before, rollback)
    drop_after(job.here.checkpoints, to_step)
    job.done = job.saved_step = to_step
    job.saver.asked_step = None  # a step that is taken again is another one
    job.journal.forget_pending()
    job.here.forget_after(to_step)
    job.meters.restore(job.here.metrics)
    job.log = [step for step in job.log if step.step <= to_step]
    job.here.event("rollback", step=to_step, spike_step=spike_step, skipped_steps=rollback.skipped_steps)
    job.say(f"back to step {to_step}; the data of {rollback.skipped_steps} steps is passed by")
    return True


# --- saving -----------------------------------------------------------------------------------------------------------


def save(job: Job) -> None:
    """Write the checkpoint of the last step, unless it was asked for already. A disk that refuses is told of later.

    Raises CheckpointError for weights that are not finite, FileError after too many failed saves in a row.
    """
    if job.done in (job.saved_step, job.saver.asked_step):
        return
    try:
        job.journal.sync()  # no checkpoint may know of a step that the metrics do not
    except FileError as error:
        job.here.event("checkpoint failed", step=job.done, message=error.message())
        job.say(f"{error.message()}\n  training goes on from the weights in memory")
        return
    job.saver.save(_state(job, job.done), job.progress.best_step)


def save_last(job: Job) -> None:
    """As `save`, once more where the last step's has failed; the saver's end raises where it fails again."""
    job.saver.wait()
    if job.saved_step == job.done:
        return
    job.journal.sync()
    job.saver.save(_state(job, job.done), job.progress.best_step)
