"""Step results of a running job: read → judge → roll back, or record → evaluate."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from planner.activity import doing
from planner.errors import PlanError
from planner.units import LOSS_DIGITS, format_number
from reference_trainer.checkpoint.atomic import list_checkpoints
from reference_trainer.device.device import Show
from reference_trainer.distributed.requests import odd_rank
from reference_trainer.loop.evaluation import evaluate
from reference_trainer.loop.job import RunningJob, roll_back, save_checkpoint
from reference_trainer.metrics.log_window import MetricsRow
from reference_trainer.metrics.records import finite_or_none
from reference_trainer.model.attention import AttentionCore
from reference_trainer.model.attention_kernels import kernel_lines
from reference_trainer.step.step_results import StepResult


@dataclass(frozen=True, slots=True)
class WindowJudgement:
    """What the results of a log window ask for; nothing was done about it yet.

    spikes: the steps with a spike. rollback_step: the step that leads back to a checkpoint under the policy "rollback",
    by its loss spike or, if `past_streak`, because too many steps up to it were not finite. diverges: they were.
    """

    spikes: tuple[StepResult, ...]
    rollback_step: int | None
    past_streak: bool
    diverges: bool


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Validation loss in nats per token, and the seconds it took."""

    loss: float
    seconds: float


def handle_results(job: RunningJob, show: Show, evaluating: Callable[[], bool] | None) -> bool:
    """Read the pending steps and judge them; then roll back, or record and evaluate. Returns False after a rollback.

    evaluating: None if no evaluation is due; else a function that returns True when the evaluation must stop.
    Raises PlanError if the model has diverged or the rollback budget is spent.
    """
    results = job.pending.read()
    for result in results:
        job.requests.learn(result.asked)
    judgement = judge(job, results)
    if _rolled_back(job, judgement):
        return False
    _log_kernels(job)
    rows = job.log_window.rows(results, job.pending.window_seconds)
    if evaluating is None or not results or judgement.diverges:
        _record(job, results, rows, show)
        return True
    # the validation loss belongs to the row of the last step, which is therefore recorded after it
    _record(job, results[:-1], rows[:-1], show)
    evaluation = None
    try:
        evaluation = evaluate_now(job, evaluating)
        if evaluation is not None:
            rows[-1]["validation_loss"] = finite_or_none(evaluation.loss)
    finally:  # an evaluation that fails costs no row
        _record(job, results[-1:], rows[-1:], show)
    if evaluation is not None:
        log_evaluation(job, evaluation)
    return True


def judge(job: RunningJob, results: Sequence[StepResult]) -> WindowJudgement:
    """What the spike policy says about these steps. It changes nothing."""
    guard, spikes = job.context.config.guard, tuple(result for result in results if result.spike)
    limit = job.nonfinite_counter.limit_reached(results)
    if guard.on_spike != "rollback":
        return WindowJudgement(spikes, None, False, limit is not None)
    # a spike of the gradient norm alone was clipped: only one of the loss leads back
    spike = next((result.step for result in spikes if result.loss_sigmas > guard.spike_sigmas), None)
    return WindowJudgement(spikes, limit if spike is None else spike, spike is None, limit is not None)


def _rolled_back(job: RunningJob, judgement: WindowJudgement) -> bool:
    """Log the spikes, and roll back if the judgement asks for it and there is a checkpoint."""
    back_from = judgement.rollback_step
    for spike in judgement.spikes:
        if back_from is None or spike.step <= back_from:
            _log_spike(job, spike)
    if back_from is None:
        return False
    if roll_back(job, back_from):
        if judgement.past_streak:  # a checkpoint may lie among these steps
            job.nonfinite_counter.in_a_row = job.progress.nonfinite_in_a_row = 0
        return True
    for spike in judgement.spikes:
        if spike.step > back_from:
            _log_spike(job, spike)
    return False


def _log_kernels(job: RunningJob) -> None:
    """Log once which attention kernels the first steps used; a compiled program chose its own."""
    if job.kernels_logged:
        return
    job.kernels_logged = True
    cores = [core for core in job.context.model.modules() if isinstance(core, AttentionCore)]
    for line in kernel_lines(core.kernels[True] for core in cores if True in core.kernels):
        job.log(line)


def _log_spike(job: RunningJob, spike: StepResult) -> None:
    numbers = f"loss {format_number(spike.loss)}, gradient norm {format_number(spike.grad_norm)}"
    update, policy = "applied" if spike.updated else "skipped", job.context.config.guard.on_spike
    job.directory.event("spike", step=spike.step, loss_sigmas=spike.loss_sigmas, norm_sigmas=spike.norm_sigmas)
    job.log(f"step {spike.step}: spike ({numbers}); the update was {update}, policy: {policy}")


def _record(job: RunningJob, results: Sequence[StepResult], rows: Sequence[MetricsRow], show: Show) -> None:
    """Write one row per step to metrics.jsonl and the trackers, then count what was not finite.

    Raises PlanError after too many steps in a row that were not finite.
    """
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
    for result in results:
        _stop_if_diverged(job, result)


@doing("evaluating on held-out data")
def evaluate_now(job: RunningJob, evaluating: Callable[[], bool]) -> Evaluation | None:
    """The validation loss after the last step; None if a signal stopped the evaluation."""
    begin = time.perf_counter()
    with job.pending.outside_window():
        loss = evaluate(job.context, evaluating)
    return None if loss is None else Evaluation(loss, time.perf_counter() - begin)


def _stop_if_diverged(job: RunningJob, result: StepResult) -> None:
    """Log an update that was skipped. Raises PlanError after too many steps in a row that were not finite."""
    step = result.step
    if not result.updated and not result.spike:
        job.directory.event("update skipped", step=step, loss=str(result.loss), grad_norm=str(result.grad_norm))
        alone = "" if (rank := odd_rank(result.asked)) is None else f" (the loss of rank {rank} alone is not finite)"
        job.log(f"step {step}: loss {result.loss}, gradient norm {result.grad_norm}{alone}; the update was skipped")
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


def is_due(every: int | None, step: int) -> bool:
    """Whether something that is done every `every` steps is due after step `step`; nothing is before the first."""
    return every is not None and step > 0 and step % every == 0


def stops_early(job: RunningJob) -> bool:
    """Whether `evaluation.patience` evaluations in a row brought no better loss."""
    patience = job.context.config.evaluation.patience
    return patience is not None and job.progress.since_best >= patience
