"""A run from config to comparison: adapt to the device, predict, probe, train, compare, report."""

from __future__ import annotations

import errno
import json
import math
import os
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median, quantiles

import torch

from planner.activity import doing
from planner.analysis.findings import findings_with_remedies
from planner.config.run import CPU, RunConfig
from planner.counts.run import tokens_per_step
from planner.document import document
from planner.errors import FileError, PlanError
from planner.files import write_atomically
from planner.finding import Finding
from planner.inputs.run_toml import write_config
from planner.interval import UNKNOWN, Interval, flattened
from planner.log import Log
from planner.paths import exists
from planner.plan import Plan, estimate
from planner.printable import printable
from planner.report.comparison import comparison_markdown
from planner.report.plan import announcement
from planner.runs.comparison import Comparison, MeasuredRank, Measurement, compare
from planner.runs.comparison_file import load_comparison
from planner.runs.directory import COMPARISON, CONFIG, PLAN, holds_steps, was_refused
from planner.runs.rows import METRICS
from planner.units import format_bytes, format_number
from reference_trainer.checkpoint.atomic import list_checkpoints, stored_bytes
from reference_trainer.checkpoint.checkpoint import refuse_other_config
from reference_trainer.device.device import device_of_rank, pick_device
from reference_trainer.device.out_of_memory import held_by_others
from reference_trainer.distributed.ranks import ALONE, Ranks, process_group
from reference_trainer.loop.device_adaptation import adapt_to_device, with_runnable_runtime
from reference_trainer.loop.evaluation import opened_for
from reference_trainer.loop.startup import last_step_of
from reference_trainer.measure.measure import model_flops_per_step
from reference_trainer.measure.probe import NOTHING_PROBED, Probe, probe_if_possible
from reference_trainer.metrics.metrics_file import read_rows
from reference_trainer.metrics.records import RunResult, as_logged, finite_or_none, of_all_ranks
from reference_trainer.metrics.run_directory import FollowedDirectory, RunDirectory
from reference_trainer.metrics.trackers import check_trackers
from reference_trainer.post_mortem import write_post_mortem
from reference_trainer.step.options import RunOptions, as_before, options_of_follower, write_options
from reference_trainer.step.precision import refuse_unrunnable
from reference_trainer.train import run_measured

SETTLING_STEPS = 2  # the first steps allocate memory and fill caches; they are not timed
OTHER_PROCESS_BYTES = 2**30  # no CUDA context of one process differs so much from its preset; a judgement
MEASUREMENT = "measurement.json"


@dataclass(frozen=True, slots=True)
class Outcome:
    """The exit code, and the comparison if the run finished."""

    exit_code: int
    comparison: Comparison | None


def execute(
    config: RunConfig, directory: Path, resume: bool, options: RunOptions, log: Log, ranks: Ranks = ALONE
) -> Outcome:
    """Train `config` in `directory`, and compare the measurements with the prediction made before training.

    Of several `ranks` the first checks, predicts, writes and compares; the others train as it says. Raises PlanError
    for mistakes of the user; all of them are checked before the first step.
    """
    options = replace(options, resume=resume)
    if not ranks.leads:
        options = options_of_follower(directory, options)
    elif resume:
        options = as_before(directory, options, log)
    options = replace(options, eval_command=options.eval_command or None)  # "" asks for none
    device = pick_device(device_of_rank(options.device, ranks.local, ranks.joined))
    with process_group(ranks, device) as group:
        if group.leads:
            return _execute(config, directory, options, log, (group, device))
        return _follow(directory, replace(options, device=str(device)), group)


def _follow(directory: Path, options: RunOptions, ranks: Ranks) -> Outcome:
    """Train what the first rank has decided on, and leave all that is written to it."""
    config = RunConfig.model_validate_json(ranks.share())
    data = opened_for(config, options.data_path, options.reading)
    result = run_measured(config, directory, options, lambda line: None, data, FollowedDirectory(directory), ranks)
    of_all_ranks(result, ranks)
    ranks.wait()  # the first writes its report: when one rank has ended, all are
    return Outcome(2 if result.stopped is not None else result.exit_code, None)


def _execute(
    config: RunConfig, directory: Path, options: RunOptions, log: Log, on: tuple[Ranks, torch.device]
) -> Outcome:
    """As `execute`, for the first rank, on its device."""
    (ranks, device), resume = on, options.resume
    if resume:
        refuse_other_config(directory / "checkpoints", config, options.new_schedule)
    # all checks come before this machine is measured and before anything is written
    last_step_of(config, options, ranks)
    check_trackers(options.trackers)
    config = config if resume else with_runnable_runtime(config, device)
    refuse_unrunnable(config, device)
    data = opened_for(config, options.data_path, options.reading)
    if not resume:
        refuse_occupied(directory)
        named = {} if options.profile is None else {"profile": options.profile}
        config = adapt_to_device(config, device, log, **named)
    with doing("predicting what the run will need"):
        plan = estimate(config, replay=True)
        plan_findings = findings_with_remedies(plan)
    hardware = plan.flops.per_token_hardware * tokens_per_step(config)
    given_options, options = (
        options,
        replace(
            options,
            device=str(device),
            flops_per_step=plan.flops.per_step_model,
            hardware_flops_per_step=hardware,
            peak_flops=_peak(plan),
        ),
    )
    with RunDirectory(directory) as held:  # until the report is written: nobody else works here
        if resume:  # the config may have changed
            write_atomically(directory / PLAN, _plan_text(plan, plan_findings), overwrite=True)
        else:
            refuse_occupied(directory)  # again, now that it is locked
            _write_plan(plan, plan_findings, directory)
            write_options(directory, given_options, log)
            log(announcement(plan))
            for finding in plan_findings:
                if finding.level == "error":
                    log(f"{finding.level} [{finding.code}] {finding.message}; {finding.remedy}")
        if options.eval_command is not None:  # whoever starts it sees it first
            log(f"the eval command, run in a shell with your rights: {printable(options.eval_command)}")
        ranks.share(config.model_dump_json())
        try:
            result = run_measured(config, directory, options, log, data, held, ranks)
            result = of_all_ranks(result, ranks)
        except PlanError:
            _write_post_mortem(directory, log)
            raise
        if result.stopped is not None:
            measured = _measurement(config, result, NOTHING_PROBED)
            _write_report(directory, compare(plan, measured), measured, plan, _losses(result))
            _write_post_mortem(directory, log)
            ranks.wait()
            raise result.stopped
        if result.exit_code:
            _write_post_mortem(directory, log)
            ranks.wait()
            return Outcome(result.exit_code, None)  # interrupted: the comparison is made when the run is complete
        if not result.step_seconds:  # the run was finished earlier
            if exists(directory / COMPARISON):
                ranks.wait()
                return Outcome(0, load_comparison(directory))
            result = _as_logged(result, held)
        # the probe cannot see the tensors of a compiled program, and those of an eager model would be wrong
        # and a model on its own has no buckets and no shards
        unseen = config.training.runtime == "compiled" or ranks.world > 1
        probed = NOTHING_PROBED if unseen else probe_if_possible(config, data, device, log)
        measured = _measurement(config, result, probed)
        comparison = compare(plan, measured)
        _write_report(directory, comparison, measured, plan, _losses(result))
        _write_post_mortem(directory, log)
        ranks.wait()
        return Outcome(result.exit_code, comparison)


def refuse_occupied(directory: Path) -> None:
    """Raises FileError unless the run directory can be written, and is new, empty, or left by a refused start."""
    try:
        with suppress(FileNotFoundError):
            os.stat(directory)  # a name that is too long, a loop of links, a file in its path
        occupied = exists(directory) and any(directory.iterdir()) and not was_refused(directory)
        above = next(p for p in (directory, *directory.absolute().parents) if exists(p))
        if not os.access(above, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, f"{above} is not writable")
    except OSError as error:
        raise FileError(
            f"{directory} cannot be used as a run directory",
            why=error.strerror or str(error),
            remedy="give another --out",
        ) from None
    if occupied:
        is_run = holds_steps(directory)
        raise FileError(
            f"{directory} {'already contains a run' if is_run else 'is not empty'}",
            why="a new run would overwrite files or mix with them",
            remedy=f"resume it with: gptplan run --resume {directory}; or give another --out"
            if is_run
            else "give another --out",
        )


def _write_post_mortem(directory: Path, log: Log) -> None:
    """Write post-mortem.md if the run has metrics. A disk error is logged, and does not fail the run."""
    try:
        if exists(directory / METRICS):
            log(f"post-mortem: {write_post_mortem(directory)}")
    except FileError as error:
        log(error.message())


def _peak(plan: Plan) -> float | None:
    t = plan.throughput
    if t.mfu.value is None or t.tokens_per_second.value is None:
        return None
    return plan.flops.per_token_model * t.tokens_per_second.value / t.mfu.value / plan.config.hardware.gpus


def _write_plan(plan: Plan, plan_findings: tuple[Finding, ...], directory: Path) -> None:
    write_config(directory / CONFIG, plan.config, overwrite=True)  # a refused start may have left them
    write_atomically(directory / PLAN, _plan_text(plan, plan_findings), overwrite=True)


def _plan_text(plan: Plan, plan_findings: tuple[Finding, ...]) -> str:
    return json.dumps(document(plan, plan_findings), indent=1, allow_nan=False) + "\n"


def _measurement(config: RunConfig, result: RunResult, probed: Probe) -> Measurement:
    """The measurements of run and probe in one record. On a GPU the counters of the allocator take precedence."""
    seconds, tracked = result.step_seconds[SETTLING_STEPS:], bool(probed.track.phases)
    timed = _timed(seconds)
    return Measurement(
        device=result.device,
        device_name=result.device_name,
        torch=result.torch_version,
        parameters=result.parameters,
        flops_per_step=model_flops_per_step(config),
        saved_bytes=sum(probed.saved.values()) if probed.saved else None,
        saved_by_operator=probed.saved,
        peak_requested_bytes=result.peak_requested_bytes or (probed.track.peak.peak_bytes if tracked else None),
        peak_phase=probed.track.peak.phase if tracked else None,
        phases=probed.track.by_phase(),
        peak_allocated_bytes=result.peak_allocated_bytes,
        peak_reserved_bytes=result.peak_reserved_bytes,
        # on a CPU: the peak memory of the process, which includes PyTorch itself and the data
        device_used_bytes=result.peak_rss_bytes if result.device == CPU else _own_device_used(config, result),
        step_seconds=timed,
        steps_timed=len(seconds),
        tokens_per_second=tokens_per_step(config) / timed.value if timed.value else None,
        rates=tuple(result.rates),
        checkpoint_bytes=result.checkpoint_bytes,
        steps_done=result.steps_done,
        tokens_done=result.tokens_done,
        finished=result.finished,
        first_loss=finite_or_none(result.losses[0]) if result.losses else None,
        last_loss=finite_or_none(result.losses[-1]) if result.losses else None,
        data=result.data,
        data_fingerprint=result.data_fingerprint,
        ranks=result.ranks,
    )


def _own_device_used(config: RunConfig, result: RunResult) -> int | None:
    """What the card had in use; None where so much is beyond this process that another one must hold it."""
    others = held_by_others(config, result.device_used_bytes, result.peak_reserved_bytes)
    return None if others > OTHER_PROCESS_BYTES else result.device_used_bytes


def _as_logged(result: RunResult, directory: RunDirectory) -> RunResult:
    """The result of a run that ended before its comparison was written: a kill, a full disk."""
    saved = list_checkpoints(directory.checkpoints)
    rows = read_rows(directory.metrics) if exists(directory.metrics) else ()
    return as_logged(result, rows, stored_bytes(saved[-1]) if saved else None)


def _timed(seconds: list[float]) -> Interval[float]:
    """The median step with the first and last decile of the steps; equal steps have deciles that differ by rounding."""
    if not seconds:
        return UNKNOWN
    middle = median(seconds)
    ends = quantiles(seconds, n=10) if len(seconds) > 1 else [middle]
    return Interval(min(ends[0], middle), middle, max(ends[-1], middle))


def _losses(result: RunResult) -> str:
    """The first and last loss for people."""
    if not result.losses:
        return "unknown"
    ends = (format_number(x) if math.isfinite(x) else "not finite" for x in (result.losses[0], result.losses[-1]))
    return f"{' → '.join(ends)} nats per token"


def _ranks(ranks: tuple[MeasuredRank, ...]) -> str:
    """How many ranks, and the lowest and highest peak among them."""
    what, key = (
        ("requested", "peak_requested_bytes") if ranks[0].peak_requested_bytes else ("resident", "peak_rss_bytes")
    )
    known = [size for memory in ranks if (size := getattr(memory, key)) is not None]
    span = f", {what} at most {format_bytes(min(known))} to {format_bytes(max(known))} on each" if known else ""
    return f"{len(ranks)}{span}; the comparison has the highest of all, and the speed is that of all together"


def _write_report(directory: Path, comparison: Comparison, measured: Measurement, plan: Plan, losses: str) -> None:
    """Write comparison.json, measurement.json and report.md; a resumed run writes them again."""

    def write(name: str, text: str) -> None:
        write_atomically(directory / name, text, overwrite=True)

    write(COMPARISON, json.dumps(asdict(comparison), indent=1, allow_nan=False) + "\n")
    write(MEASUREMENT, json.dumps(flattened(measured), indent=1, allow_nan=False) + "\n")
    facts = [
        ("model", f"{plan.config.model.name}, {plan.parameters.total:,} parameters"),
        ("device", f"{measured.device_name} ({measured.device}), torch {measured.torch}"),
        *([("ranks", _ranks(measured.ranks))] if measured.ranks else []),
        ("recipe", plan.config.training.recipe),
        ("data", f"{measured.data}, sha256 {measured.data_fingerprint}"),
        ("steps", f"{measured.steps_done:,} of {plan.batch.steps:,}, {measured.steps_timed} timed"),
        ("loss", losses),
        ("written by", f"gptplan {plan.config.provenance.gptplan}, plan of {plan.config.provenance.as_of}"),
    ]
    write("report.md", comparison_markdown(comparison, "Predicted and measured", facts))
