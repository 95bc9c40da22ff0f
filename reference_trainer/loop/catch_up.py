"""What a stop broke off is made up when the run continues: the evaluation and the eval command of its last step.

So the best checkpoint, the patience and the rows are those of a run that nobody interrupted.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from planner.counts.run import steps_of
from reference_trainer.loop.eval_command import run_eval_command
from reference_trainer.loop.job import RunningJob, save_checkpoint
from reference_trainer.loop.results import evaluate_now, is_due, log_evaluation
from reference_trainer.metrics.metrics_file import read_rows
from reference_trainer.metrics.records import finite_or_none
from reference_trainer.metrics.run_directory import file_error_of, rewrite_lines

COMMAND_EVENTS = ("eval command", "eval command failed")


def owes_evaluation(job: RunningJob) -> bool:
    """Whether the evaluation of the last step is due and was not finished."""
    return is_due(job.context.config.evaluation.every, job.done) and job.progress.evaluated_step != job.done


def catch_up(job: RunningJob, stopping: Callable[[], bool]) -> bool:
    """Evaluate the last step, and run the eval command on it, where that is due and was not finished.

    Returns whether there was anything to do.
    """
    ranks = job.context.ranks
    owed, owed_command = owes_evaluation(job), ranks.leads and _owes_command(job)
    owes = ranks.share(str(int(owed or owed_command))) == "1"
    if owed:
        job.log(f"the evaluation of step {job.done} was broken off: it is made up")
        evaluation = evaluate_now(job, stopping)
        if evaluation is None:
            return True
        if job.context.ranks.leads:
            _add_to_row(job.directory.metrics, job.done, "validation_loss", finite_or_none(evaluation.loss))
        log_evaluation(job, evaluation)
        # once more, with the evaluation in its state: the best checkpoint is known when old ones are deleted
        job.saves.step, job.saver.requested_step = -1, None
        save_checkpoint(job)
        job.saver.wait()
    if owed_command:
        run_eval_command(job, stopping)
    job.eval_command_step = job.done
    return owes


def _owes_command(job: RunningJob) -> bool:
    config = job.context.config
    due = is_due(config.evaluation.every, job.done) or is_due(config.training.checkpoint_every, job.done)
    if job.options.eval_command is None or not job.done or not (due or job.done == steps_of(config)):
        return False
    ran = False
    for event in read_rows(job.directory.events):
        if event.get("event") in COMMAND_EVENTS and event.get("step") == job.done:
            ran = True
        elif event.get("event") == "rollback" and event.get("step", 0) < job.done:
            ran = False  # what it judged was trained again, with other data
    return not ran


def _add_to_row(path: Path, step: int, key: str, value: float | None) -> None:
    """Write a number into the row of a step that is there already. Raises FileError where the disk refuses."""

    def change(row: dict[str, Any], line: str) -> str:
        return json.dumps(row | {key: value}, allow_nan=False) + "\n" if row.get("step") == step else line

    with file_error_of(path):
        rewrite_lines(path, change)
