"""A run from config to comparison: adapt to the device, predict, probe, train, compare, report."""

from __future__ import annotations

import errno
import json
import os
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median, quantiles

from planner.analysis.findings import findings
from planner.analysis.fitting import with_remedies
from planner.config.run import CPU, RunConfig
from planner.counts.run import tokens_per_step
from planner.document import document
from planner.errors import FileError, PlanError
from planner.files import write_atomically
from planner.finding import Finding
from planner.inputs.run_toml import config_text
from planner.log import Log
from planner.plan import Plan, estimate
from planner.report.comparison import comparison_markdown
from planner.report.plan import announcement
from planner.runs.comparison import Comparison, Measurement, compare
from planner.runs.comparison_file import load_comparison
from planner.runs.directory import COMPARISON, CONFIG, METRICS, PLAN
from planner.units import format_number
from reference_trainer.checkpoint.checkpoint import refuse_other_config
from reference_trainer.device.device import pick_device
from reference_trainer.loop.device_adaptation import adapt_to_device
from reference_trainer.loop.evaluation import opened_for
from reference_trainer.loop.startup import last_step_of
from reference_trainer.measure.measure import model_flops_per_step
from reference_trainer.measure.probe import Probe, probe
from reference_trainer.measure.replay import Track
from reference_trainer.metrics.records import RunResult
from reference_trainer.metrics.trackers import check_trackers
from reference_trainer.post_mortem import write_post_mortem
from reference_trainer.step.options import RunOptions, as_before, write_options
from reference_trainer.step.precision import refuse_unrunnable
from reference_trainer.train import run

SETTLING_STEPS = 2  # the first steps pay for allocation and caches; they are not timed
MEASUREMENT = "measurement.json"


@dataclass(frozen=True, slots=True)
class Outcome:
    """The exit code, and the comparison where the run came to one."""

    exit_code: int
    comparison: Comparison | None


def execute(config: RunConfig, directory: Path, resume: bool, options: RunOptions, log: Log) -> Outcome:
    """Train `config` in `directory` and compare with what was predicted before it began.

    Raises PlanError for what the user can mend; nothing is trained before all of it is checked.
    """
    options = replace(as_before(directory, options) if resume else options, resume=resume)
    device = pick_device(options.device)
    if resume:
        refuse_other_config(directory / "checkpoints", config, options.new_schedule)
    # what can be refused is refused before the machine is measured and before anything is written
    last_step_of(config, options)
    check_trackers(options.trackers)
    refuse_unrunnable(config, device)
    data = opened_for(config, options.data_path, options.reading)
    if not resume:
        _refuse_occupied(directory)
        config = adapt_to_device(config, device, log)
    plan = estimate(config, replay=True)
    hardware = plan.flops.per_token_hardware * tokens_per_step(config)
    asked, options = (
        options,
        replace(
            options,
            device=str(device),
            flops_per_step=plan.flops.per_step_model,
            hardware_flops_per_step=hardware,
            peak_flops=_peak(plan),
        ),
    )
    found = with_remedies(plan, findings(plan))
    if resume:  # the config may have been changed since
        write_atomically(directory / PLAN, _plan_text(plan, found), overwrite=True)
    else:
        _write_plan(plan, found, directory)
        write_options(directory, asked)
        log(announcement(plan))
        for finding in found:
            if finding.level == "error":
                log(f"{finding.level} [{finding.code}] {finding.message}; {finding.remedy}")
    try:
        result = run(config, directory, options, log, data)
    except PlanError:
        _look_back(directory, log)
        raise
    if result.exit_code:
        _look_back(directory, log)
        return Outcome(result.exit_code, None)  # who interrupts wants to leave; the rest of the run will compare
    if not result.step_seconds and (directory / COMPARISON).exists():
        return Outcome(0, load_comparison(directory))  # it was finished before: what it measured then stands
    # a compiled program's tensors are out of sight of the probe: they stay unknown, and are no eager model's
    seen = Probe(Track(), {}) if config.training.runtime == "compiled" else probe(config, data, device, log)
    measured = _measurement(config, result, seen)
    comparison = compare(plan, measured)
    _write_report(directory, comparison, measured, plan)
    _look_back(directory, log)
    return Outcome(result.exit_code, comparison)


def _refuse_occupied(directory: Path) -> None:
    """A run directory is new or empty, and somewhere above it can be written."""
    try:
        occupied = directory.exists() and any(directory.iterdir())
        above = next(p for p in (directory, *directory.absolute().parents) if p.exists())
        if not os.access(above, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, f"{above} cannot be written")
    except OSError as error:
        raise FileError(
            f"{directory} cannot be used as a run directory",
            why=error.strerror or str(error),
            remedy="give another --out",
        ) from None
    if occupied:
        held = (directory / CONFIG).exists()
        raise FileError(
            f"{directory} {'holds a run already' if held else 'is not empty'}",
            why="nothing is overwritten or mixed unasked",
            remedy=f"continue it with: gptplan run --resume {directory}" if held else "give another --out",
        )


def _look_back(directory: Path, log: Log) -> None:
    """post-mortem.md, where the run came to a step; a disk that is full now is no reason to fail."""
    try:
        if (directory / METRICS).exists():
            log(f"post-mortem: {write_post_mortem(directory)}")
    except FileError as error:
        log(error.message())


def _peak(plan: Plan) -> float | None:
    t = plan.throughput
    if t.mfu is None or t.tokens_per_second is None:
        return None
    return plan.flops.per_token_model * t.tokens_per_second / t.mfu / plan.config.hardware.gpus


def _write_plan(plan: Plan, found: tuple[Finding, ...], directory: Path) -> None:
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FileError(f"{directory} cannot be made", why=str(error), remedy="give another --out") from None
    write_atomically(directory / CONFIG, config_text(plan.config))
    write_atomically(directory / PLAN, _plan_text(plan, found))


def _plan_text(plan: Plan, found: tuple[Finding, ...]) -> str:
    return json.dumps(document(plan, found), indent=1, allow_nan=False) + "\n"


def _measurement(config: RunConfig, result: RunResult, seen: Probe) -> Measurement:
    """What the probe and the run measured, in one record; on a GPU the allocator's own counters win."""
    seconds, watched = result.step_seconds[SETTLING_STEPS:], bool(seen.track.phases)
    middle = median(seconds) if seconds else None
    ends = quantiles(seconds, n=10) if len(seconds) > 1 else [middle] * 9
    return Measurement(
        device=result.device,
        device_name=result.device_name,
        torch=result.torch_version,
        parameters=result.parameters,
        flops_per_step=model_flops_per_step(config),
        saved_bytes=sum(seen.saved.values()) if seen.saved else None,
        saved_by_operator=seen.saved,
        peak_requested_bytes=result.peak_requested_bytes or (seen.track.peak.peak_bytes if watched else None),
        peak_phase=seen.track.peak.phase if watched else None,
        phases=seen.track.by_phase(),
        peak_allocated_bytes=result.peak_allocated_bytes,
        peak_reserved_bytes=result.peak_reserved_bytes,
        # of a CPU run, what the process held at most: PyTorch's own code and the data are in it
        device_used_bytes=result.peak_rss_bytes if result.device == CPU else result.device_used_bytes,
        step_seconds=middle,
        step_seconds_low=ends[0],
        step_seconds_high=ends[-1],
        steps_timed=len(seconds),
        tokens_per_second=tokens_per_step(config) / middle if middle else None,
        rates=tuple(result.rates),
        checkpoint_bytes=result.checkpoint_bytes,
        steps_done=result.steps_done,
        tokens_done=result.tokens_done,
        finished=result.finished,
        first_loss=result.losses[0] if result.losses else None,
        last_loss=result.losses[-1] if result.losses else None,
        data=result.data,
        data_fingerprint=result.data_fingerprint,
    )


def _write_report(directory: Path, comparison: Comparison, measured: Measurement, plan: Plan) -> None:
    """comparison.json, measurement.json and report.md; written anew by every continuation of the run."""

    def write(name: str, text: str) -> None:
        write_atomically(directory / name, text, overwrite=True)

    write(COMPARISON, json.dumps(asdict(comparison), indent=1, allow_nan=False) + "\n")
    write(MEASUREMENT, json.dumps(asdict(measured), indent=1, allow_nan=False) + "\n")
    facts = [
        ("model", f"{plan.config.model.name}, {plan.parameters.total:,} parameters"),
        ("device", f"{measured.device_name} ({measured.device}), torch {measured.torch}"),
        ("recipe", plan.config.training.recipe),
        ("data", f"{measured.data}, sha256 {measured.data_fingerprint}"),
        ("steps", f"{measured.steps_done:,} of {plan.batch.steps:,}, {measured.steps_timed} timed"),
        ("loss", f"{format_number(measured.first_loss)} → {format_number(measured.last_loss)} nats per token"),
        ("written by", f"gptplan {plan.config.provenance.gptplan}, plan of {plan.config.provenance.as_of}"),
    ]
    write("report.md", comparison_markdown(comparison, "Predicted and measured", facts))
