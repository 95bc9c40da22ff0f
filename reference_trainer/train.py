"""The training loop: trains a `RunConfig` on one device, and returns and logs what it measured.

Learning rate, number of steps and tokens per step come from the planner: they are not computed a second time here.
Read `run` and `_loop` from top to bottom; everything else is called by them.
"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import torch

from planner.activity import doing
from planner.config.run import RunConfig
from planner.counts.run import steps_of, tokens_per_step
from planner.errors import PlanError
from planner.log import Log
from planner.units import format_bytes
from reference_trainer.checkpoint.checkpoint import bytes_needed
from reference_trainer.checkpoint.retention import check_space
from reference_trainer.data.corpus.listing import summary_lines
from reference_trainer.data.samples import TokenData
from reference_trainer.device.cuda_setup import overruled_environment
from reference_trainer.device.device import Show, device_name, pick_device, progress
from reference_trainer.device.os_signals import StopSignals
from reference_trainer.distributed.ranks import ALONE, Ranks
from reference_trainer.distributed.requests import Requests
from reference_trainer.distributed.watch import RANK_TIMEOUT, Watch
from reference_trainer.loop.catch_up import catch_up, owes_evaluation
from reference_trainer.loop.eval_command import run_eval_command
from reference_trainer.loop.evaluation import opened_for, refuse_unevaluated
from reference_trainer.loop.job import RunningJob, resume, save_checkpoint, save_last_checkpoint
from reference_trainer.loop.results import handle_results, is_due, stops_early
from reference_trainer.loop.startup import build, check_directory, last_step_of
from reference_trainer.metrics.records import RunResult, result_of, start_details
from reference_trainer.metrics.run_directory import RunDirectory
from reference_trainer.metrics.trackers import Trackers, check_trackers
from reference_trainer.metrics.watchers import attach_watchers
from reference_trainer.step.options import RunOptions
from reference_trainer.step.precision import refuse_unrunnable, uses_tf32
from reference_trainer.step.step import explained_breakdown, numerics, train_step


def run(config: RunConfig, out: Path, options: RunOptions, log: Log, data: TokenData | None = None) -> RunResult:
    """Train `config` in the directory `out` until its last step, `options.stop_after` or a signal.

    data: the data of `options.data_path` if the caller has opened it already; reading and hashing it takes time.
    Raises PlanError (or a subclass) for mistakes of the user; all of them are checked before the first step.
    """
    result = run_measured(config, out, options, log, data)
    if result.stopped is not None:
        raise result.stopped
    return result


def run_measured(
    config: RunConfig,
    out: Path,
    options: RunOptions,
    log: Log,
    data: TokenData | None = None,
    held: RunDirectory | None = None,
    ranks: Ranks = ALONE,
) -> RunResult:
    """As `run`, but a training that diverged returns what was measured until then, with the error in `stopped`.

    held: the directory `out` if the caller holds its lock. ranks: those that train, this one among them.
    """
    last = last_step_of(config, options, ranks)
    check_trackers(options.trackers)
    device = pick_device(options.device)
    refuse_unrunnable(config, device)
    opened = RunDirectory(out) if held is None else nullcontext(held)
    with opened as directory, StopSignals() as signals, numerics(options.deterministic, uses_tf32(config)):
        if ranks.leads:
            check_directory(out, options.resume)
        if data is None:
            data = opened_for(config, options.data_path, options.reading)
        refuse_unevaluated(config, data)
        overruled = overruled_environment(config.hardware.allocator, device)
        if overruled is not None:
            log(overruled)
        requests = Requests(signals, options.time_limit, ranks)
        job = RunningJob(build(config, device, data, ranks), directory, options, log, requests=requests)
        notes = attach_watchers(job.context, options)
        made_up = False
        if options.resume:
            resume(job)
            made_up = catch_up(job, requests.interrupted)
        if not made_up and (job.done >= last or stops_early(job)):
            log(f"the run in {out} is already at step {job.done}: nothing is left to do")
            done = result_of(job.context, [], job.done, 0, None)
            return replace(done, finished=done.finished or stops_early(job))
        if ranks.leads:
            check_space(directory.checkpoints, config, bytes_needed(job.context.optimizer, config), job.done, last)
        directory.event("resume" if options.resume else "start", step=job.done, **start_details(job.context, options))
        log(f"{data.description}; training on {device_name(device)}")
        for line in () if data.summary is None else summary_lines(data.summary):
            log(line)
        for note in notes:
            log(note)
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        if options.trackers and ranks.leads:
            job.trackers = Trackers(options.trackers, out, start_details(job.context, options), job.done + 1)
        with progress(job.done, last, tokens_per_step(config), log, options.progress) as show:
            try:
                watch = Watch(ranks, job.context.moves, options.rank_timeout or RANK_TIMEOUT)
                with explained_breakdown(device), watch, job.saver, doing(_training(config)):
                    _loop(job, last, show)
            except PlanError as error:
                if not job.diverged:
                    raise
                return replace(result_of(job.context, job.results, job.done, 2, job.saves.size_bytes), stopped=error)
            finally:
                job.context.prefetcher.close()
                for message in job.trackers.close() if job.trackers is not None else ():
                    log(message)
        return _finish(job)


def _loop(job: RunningJob, last: int, show: Show) -> None:
    """Train from step `job.done` + 1 to `last`. The host waits for the device in `handle_results`
    and where a checkpoint is saved; within a step only where step.py says."""
    config, requests = job.context.config, job.requests
    log_every = log_interval(job.options, job.context.device)
    while job.done < last and not (requests.stop() or stops_early(job)):
        job.done += 1
        # the first step compiles, and makes the links to other GPUs
        with job.context.moves.working() if not job.results else nullcontext():
            job.pending.add(train_step(job.context, job.done))
        job.saver.check()
        evaluates = is_due(config.evaluation.every, job.done)
        saves = requests.take_save() or (is_due(config.training.checkpoint_every, job.done) and job.done < last)
        if evaluates or saves or job.done == last or is_due(log_every, job.done):
            continues = handle_results(job, show, requests.interrupted if evaluates else None)  # False after a rollback
            if continues and saves:
                save_checkpoint(job)
            if continues and (evaluates or saves):
                run_eval_command(job, requests.signals_here)
    handle_results(job, show, None)
    save_last_checkpoint(job)
    run_eval_command(job, requests.signals_here)


def _training(config: RunConfig) -> str:
    compiles = config.training.runtime == "compiled"
    return "compiling the model, for which the first step waits" if compiles else "training"


def log_interval(options: RunOptions, device: torch.device) -> int:
    """Steps per log window: `options.log_every`, else 10 on a GPU (which must not wait for the host) and 1 on a CPU."""
    return options.log_every or (10 if device.type == "cuda" else 1)


def _finish(job: RunningJob) -> RunResult:
    early, requests = stops_early(job), job.requests
    # a signal in the evaluation of the last step leaves something to do
    finished = early or (job.done >= steps_of(job.context.config) and not owes_evaluation(job))
    exit_code = 0 if finished else requests.exit_code
    if requests.stop_signal and not finished:
        name, of = requests.stop_signal.name, requests.asked_rank
        job.directory.event("signal", step=job.done, signal=name, **({} if of is None else {"rank": of}))
        alone = "" if of is None else f" (rank {of} alone was sent it)"
        job.log(f"{name}{alone}: stopped after step {job.done}; continue with --resume")
    if early:
        best = job.progress.best_step
        job.log(f"stopped early after step {job.done}: the best validation loss was at step {best}")
    job.directory.event("finished" if finished else "stopped", step=job.done, exit_code=exit_code)
    if job.saves.size_bytes is not None:
        job.log(f"step {job.done} saved in {job.directory.checkpoints} ({format_bytes(job.saves.size_bytes)})")
    result = result_of(job.context, job.results, job.done, exit_code, job.saves.size_bytes)
    return replace(result, finished=finished)  # an early stop, requested by the config, counts as finished
