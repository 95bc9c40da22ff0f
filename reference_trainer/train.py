"""The training loop: a `RunConfig` is executed on one device, and what really happened is returned and written down.

The learning rate, the number of steps and the tokens per step are the planner's own; nothing is computed here again.
Read `run` from top to bottom: everything else is a step of it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from planner.config import RunConfig
from planner.errors import CheckpointError, ConfigError, FileError, InputError, PlanError
from planner.shape import recipe_of, steps_of, tokens_per_step
from planner.units import format_bytes
from reference_trainer.checkpoint import State, bytes_needed, load, state_of
from reference_trainer.data import TokenData, open_data
from reference_trainer.measure import build_model
from reference_trainer.monitor import device_name, pick_device, progress
from reference_trainer.paths import MetricsFile, RunDirectory, metrics_file
from reference_trainer.precision import refuse_unrunnable
from reference_trainer.publish import newest_valid
from reference_trainer.records import RunOptions, RunResult, facts_of, result_of, row_of
from reference_trainer.retention import check_space
from reference_trainer.saver import Report, Saver
from reference_trainer.signals import StopSignals
from reference_trainer.step import Step, Work, explained_shortage, numerics, train_step
from reference_trainer.updates import make_optimizer


@dataclass(slots=True)
class Job:
    """A run in progress: what a step works on, where it is written, and the last checkpoint of this call."""

    work: Work
    here: RunDirectory
    say: Callable[[str], None]
    saved_step: int = 0
    checkpoint_bytes: int | None = None

    def saved(self, report: Report) -> None:
        """Log what became of a save."""
        if report.error is not None:
            self.here.event("checkpoint failed", step=report.step, message=report.error.message())
            self.say(f"{report.error.message()}\n  training goes on from the weights in memory")
            return
        self.saved_step, self.checkpoint_bytes = report.step, report.size_bytes
        seconds = {"seconds": report.write_seconds, "stalled_seconds": report.stalled_seconds}
        self.here.event("checkpoint", step=report.step, bytes=report.size_bytes, **seconds)
        for note in report.notes:
            self.say(note)


def run(
    config: RunConfig, out: Path, options: RunOptions, say: Callable[[str], None], data: TokenData | None = None
) -> RunResult:
    """Train `config` in the directory `out` until its last step, `options.stop_after` or a signal.

    data: that of `options.data_path`, where the caller has opened it already: reading and hashing it takes time.
    Raises PlanError and its kinds for what the user can mend; nothing is trained before all of it is checked.
    """
    steps = last_step_of(config, options)
    device = pick_device(options.device)
    refuse_unrunnable(config, device)
    tf32 = recipe_of(config).compute_dtype == "tf32"
    with RunDirectory(out) as here, StopSignals() as signals, numerics(options.deterministic, tf32):
        _check_directory(here, options.resume)
        if data is None:
            data = open_data(options.data_path, config.model.vocab, config.training.seq)
        job = Job(build(config, device, data), here, say)
        done = _resume(job, options.new_schedule) if options.resume else 0
        if done >= steps:
            say(f"the run in {out} is at step {done} already: nothing is left to do")
            return result_of(job.work, [], done, 0, None)
        check_space(here.checkpoints, config, bytes_needed(job.work.optimizer, config), done, steps)
        here.event("resume" if options.resume else "start", step=done, **facts_of(job.work))
        say(f"{data.description}; training on {device_name(device)}")
        log: list[Step] = []
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        with (
            metrics_file(here.metrics) as metrics,
            progress(done, steps, tokens_per_step(config), say, options.progress) as show,
            Saver(here.checkpoints, job.work.optimizer, config.checkpoints, {}, job.saved) as saver,
        ):
            begin = time.monotonic()
            for step in range(done + 1, steps + 1):
                if signals.received or _time_is_up(options, begin):
                    break
                log.append(train_step(job.work, step))
                done = step
                metrics.write(row_of(job.work, options, log[-1]))
                show(step, log[-1].loss, log[-1].seconds)
                _stop_if_diverged(job, log[-1])
                saver.check()
                if _is_due(config, step) and step < steps:
                    _save(job, metrics, saver, step)
            if done > (saver.asked_step or job.saved_step) or saver.failed:
                _save(job, metrics, saver, done)
        return _finish(job, done, log, signals)


# --- before the first step ----------------------------------------------------------------------------------------


def last_step_of(config: RunConfig, options: RunOptions) -> int:
    """The step after which this call ends. Raises for configs that this trainer cannot execute."""
    if config.hardware.gpus > 1:
        raise ConfigError(
            f"the config is for {config.hardware.gpus} GPUs; this version of the trainer runs on one device",
            why="on one device the same config would be another batch and another run",
            remedy="plan with --gpus 1 (more accumulation gives the same batch), or use an exported config elsewhere",
        )
    steps = steps_of(config)
    if steps < 1:
        raise ConfigError(
            f"{config.training.tokens} tokens are less than one optimizer step of {tokens_per_step(config)}",
            remedy="plan with more tokens or a smaller batch",
        )
    if options.stop_after is None:
        return steps
    if options.stop_after < 1:
        raise InputError(f"cannot stop after step {options.stop_after}", remedy=f"give a step from 1 to {steps}")
    return min(steps, options.stop_after)


def _check_directory(here: RunDirectory, resume: bool) -> None:
    if resume and not here.holds_a_run():
        raise CheckpointError(f"there is no run to continue in {here.root}", remedy="start it without --resume")
    if not resume and here.holds_a_run():
        raise FileError(
            f"{here.root} holds a run already",
            why="its metrics and checkpoints would be mixed with the new ones",
            remedy="continue it with --resume, or choose another directory with --out",
        )


def build(config: RunConfig, device: torch.device, data: TokenData) -> Work:
    """Model and optimizer; the weights are drawn on the CPU, so that every device begins with the same ones.

    Raises PlanError when the memory does not suffice.
    """
    torch.manual_seed(config.training.seed)
    with explained_shortage(device, "before the first step"):
        model = build_model(config).to(device)
        optimizer = make_optimizer(model, config)
    if config.training.runtime == "compiled":
        model.make_tables(config.training.seq, next(model.parameters()).device)  # made outside of the program
        model.compile(dynamic=False)  # in place: parameters keep their names
    return Work(config, device, data, model, optimizer)


def _resume(job: Job, new_schedule: bool) -> int:
    """Steps done, after the newest whole checkpoint is loaded and later metrics are dropped."""
    path = newest_valid(job.here.checkpoints, job.say)
    done = 0
    if path is None:
        job.say("the run stopped before its first checkpoint: it begins again")
    else:
        expected = _state(job, 0)
        done = load(path, job.work.optimizer, expected, {}, job.say, new_schedule).step
        job.say(f"continues after step {done}")
    job.saved_step = done
    job.here.forget_after(done)
    return done


def _state(job: Job, step: int) -> State:
    config = job.work.config
    tokens = step * tokens_per_step(config)
    return state_of(config, job.work.data.fingerprint, step, tokens, None, device_name(job.work.device))


# --- after a step -----------------------------------------------------------------------------------------------------


def _time_is_up(options: RunOptions, begin: float) -> bool:
    return options.time_limit is not None and time.monotonic() - begin >= options.time_limit


def _stop_if_diverged(job: Job, done: Step) -> None:
    if done.updated:
        return
    job.here.event("update skipped", step=done.step, loss=str(done.loss), grad_norm=str(done.grad_norm))
    job.say(f"step {done.step}: loss {done.loss}, gradient norm {done.grad_norm}: the weights are left as they were")
    try:
        job.work.guard.stop_if_diverged(done.step)
    except PlanError as error:
        job.here.event("diverged", step=done.step, message=error.what)
        raise


def _is_due(config: RunConfig, step: int) -> bool:
    every = config.training.checkpoint_every
    return every is not None and step % every == 0


def _save(job: Job, metrics: MetricsFile, saver: Saver, step: int) -> None:
    """Write the checkpoint of `step`. Raises CheckpointError for weights that are not finite."""
    metrics.sync()  # no checkpoint may know of a step that the metrics do not
    saver.save(_state(job, step))


# --- at the end -------------------------------------------------------------------------------------------------------


def _finish(job: Job, done: int, log: list[Step], signals: StopSignals) -> RunResult:
    finished = done >= steps_of(job.work.config)
    exit_code = 0 if finished else signals.exit_code
    if signals.received and not finished:
        job.here.event("signal", step=done, signal=signals.received.name)
        job.say(f"{signals.received.name}: stopped after step {done}; continue with --resume")
    job.here.event("finished" if finished else "stopped", step=done, exit_code=exit_code)
    if job.checkpoint_bytes is not None:
        job.say(f"step {done} saved in {job.here.checkpoints} ({format_bytes(job.checkpoint_bytes)})")
    return result_of(job.work, log, done, exit_code, job.checkpoint_bytes)
