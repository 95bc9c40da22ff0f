"""The preflight: checks a run before it costs money, with its real config, model, data and disk.

Read `preflight` from top to bottom. A check that needs more memory or time than this machine has is skipped and says
so; it is never replaced by a smaller one.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import torch

from planner.activity import doing
from planner.analysis.ranges import repetition_findings, schedule_findings
from planner.config.run import RunConfig
from planner.counts.run import rate_at, steps_of
from planner.errors import DataError, FileError, PlanError
from planner.log import Log
from planner.paths import is_folder
from planner.plan import Plan, estimate
from planner.runs.preflight import Check, Preflight, ShownSample, Value
from planner.units import format_count, format_duration, format_number
from reference_trainer.data.codecs import is_text
from reference_trainer.data.corpus.listing import summary_lines
from reference_trainer.data.corpus.sources import ReadOptions
from reference_trainer.data.samples import TokenData, batch
from reference_trainer.device.cuda_setup import release_memory
from reference_trainer.device.device import device_name, pick_device
from reference_trainer.device.out_of_memory import explained
from reference_trainer.loop.device_adaptation import adapt_to_device, with_runnable_runtime
from reference_trainer.loop.evaluation import opened_for
from reference_trainer.loop.startup import build, last_step_of
from reference_trainer.measure.probe import probe
from reference_trainer.preflight.checkpoints import check_disk, check_round_trip, round_trip, scratch
from reference_trainer.preflight.model import (
    check_causality,
    check_decay_groups,
    check_first_loss,
    check_gradients,
    check_overfitting,
)
from reference_trainer.preflight.shown_samples import check_targets
from reference_trainer.preflight.system import (
    check_device_peak,
    check_memory,
    check_phase_peaks,
    check_step_time,
    estimate_whole_run,
    free_bytes,
)
from reference_trainer.step.options import BY_BYTES, RunOptions
from reference_trainer.step.precision import refuse_unrunnable, uses_tf32
from reference_trainer.step.step import StepContext, numerics

_SCHEMA = 1


@dataclass(frozen=True, slots=True)
class PreflightOptions:
    """Options of a preflight. out: where the run will be written; time_limit: approximate limit in seconds.

    reading: how the data is read.
    """

    device: str | None = None
    data: Path | None = None
    out: Path = Path()
    time_limit: float = 180.0
    reading: ReadOptions = BY_BYTES


@dataclass(slots=True)
class PreflightState:
    """A preflight in progress."""

    config: RunConfig
    plan: Plan
    device: torch.device
    options: PreflightOptions
    log: Log
    begin: float
    checks: list[Check] = field(default_factory=list)
    samples: tuple[ShownSample, ...] = ()

    def left(self) -> float:
        """Seconds until the time limit."""
        return self.begin + self.options.time_limit - time.monotonic()

    def skip(self, names: Iterable[str], why: str, remedy: str = "") -> None:
        """Record these checks as skipped."""
        self.checks += [Check(name, "skipped", "", "", why, remedy) for name in names]


MODEL_CHECKS = ("first loss", "first gradient", "all are trained", "decay groups", "causality")
STEP_CHECKS = ("step time", "peak of a step", "save and load", "checkpoint size", "one sequence over-fitted")


def preflight(config: RunConfig, options: PreflightOptions, log: Log) -> Preflight:
    """The results of all checks of `config` on this machine. Raises PlanError if no run could start at all."""
    begin = time.monotonic()
    device = pick_device(options.device)
    last_step_of(config, RunOptions())
    config = with_runnable_runtime(config, device)
    refuse_unrunnable(config, device)
    config = adapt_to_device(config, device, log)
    with doing("predicting what the run will need"):
        plan = estimate(config, replay=True)
    state = PreflightState(config, plan, device, options, log, begin)
    with numerics(False, uses_tf32(config)):
        data = _data(state)
        rates = _rates(state)
        state.checks.append(check_memory(plan, free_bytes(device)))
        step_seconds = save_seconds = None
        if data is None:
            state.skip([*MODEL_CHECKS, *STEP_CHECKS], "the data cannot be used; see the data check")
        elif state.checks[-1].verdict == "failed":
            state.skip([*MODEL_CHECKS, *STEP_CHECKS], "the predicted peak is above the free memory")
        else:
            step_seconds, save_seconds = _runs(state, data)
    _disk(state)
    if step_seconds is None:
        state.skip(["whole run"], "no step was timed")
    else:
        state.checks.append(estimate_whole_run(plan, step_seconds, save_seconds))
    return Preflight(
        schema_version=_SCHEMA,
        model=config.model.name,
        parameters=plan.parameters.total,
        device=str(device),
        device_name=device_name(device),
        torch=str(torch.__version__),
        seconds=time.monotonic() - begin,
        rates=rates,
        samples=state.samples,
        checks=tuple(state.checks),
    )


# --- data and schedule --------------------------------------------------------------------------------------------


def _data(state: PreflightState) -> TokenData | None:
    config, name = state.config, "data"
    try:
        data = opened_for(config, state.options.data, state.options.reading)
    except DataError as error:
        state.checks.append(Check(name, "failed", "unusable", "", f"{error.what}: {error.why}", error.remedy))
        return None
    tokens, known = state.plan.tokens.trained, data.valid_tokens
    found = [f for f in repetition_findings(tokens, known) if f.level == "warning"]
    epochs = tokens / known
    measured = f"{format_count(known)} targets, {format_number(epochs)} epochs"
    values: dict[str, Value] = {
        "valid_tokens": known,
        "trained_tokens": tokens,
        "epochs": epochs,
        "sha256": data.fingerprint,
    }
    if data.summary is not None:
        read = data.summary
        values |= {"files": read.files, "documents": read.documents, "bytes": read.bytes}
        values |= {"files_not_read": len(read.skipped)}
        measured += f"; {len(read.skipped)} files not read" if read.skipped else ""
        for line in summary_lines(read):
            state.log(line)
    expected = f"{format_count(tokens)} trained on"
    if found:
        state.checks.append(Check(name, "warning", measured, expected, found[0].message, found[0].remedy, values))
    else:
        state.checks.append(Check(name, "ok", measured, expected, data.description, values=values))
    targets, state.samples = check_targets(config, data, is_text(state.options.data))
    state.checks.append(targets)
    return data


def _rates(state: PreflightState) -> tuple[tuple[int, float], ...]:
    """The learning rate of the first update, at the end of warm-up, in the middle, and of the last update."""
    config, steps = state.config, steps_of(state.config)
    key_steps = sorted({1, min(max(config.schedule.warmup_steps, 1), steps), max(steps // 2, 1), steps})
    rates = tuple((step, rate_at(config, step)) for step in key_steps)
    highest, peak = max(rate for _, rate in rates), config.schedule.peak_lr
    measured = (
        f"{format_number(rates[0][1])} first, {format_number(highest)} highest, {format_number(rates[-1][1])} last"
    )
    expected = f"above 0, peak {format_number(peak)}"
    values = {f"step_{step}": rate for step, rate in rates}
    warnings = [f for f in schedule_findings(config.schedule, steps, state.plan.parameters.active) if f.level != "note"]
    if not all(math.isfinite(rate) for _, rate in rates) or rates[0][1] <= 0:
        why, mend = "the first learning rate must be finite and above 0", "change the schedule"
        state.checks.append(Check("learning rate", "failed", measured, expected, why, mend, values))
    elif highest < peak or warnings:
        why = "; ".join(f.message for f in warnings) or "the run ends during warm-up, so that the peak is never reached"
        mend = "; ".join(f.remedy for f in warnings) or "plan a shorter warm-up or more steps"
        state.checks.append(Check("learning rate", "warning", measured, expected, why, mend, values))
    else:
        state.checks.append(Check("learning rate", "ok", measured, expected, values=values))
    return rates


# --- checks that compute ------------------------------------------------------------------------------------------


def _runs(state: PreflightState, data: TokenData) -> tuple[float | None, float | None]:
    """Run the checks that compute. Returns the seconds of a step and of a save; None if not measured."""
    predicted = state.plan.throughput.step_seconds.value
    micro = predicted / state.config.training.accumulation if predicted else 0.0
    names = [*MODEL_CHECKS, *STEP_CHECKS]
    if micro > state.left():
        state.skip(
            names, f"one micro-batch is predicted to take {format_duration(micro)}", "give a longer --time-limit"
        )
        return None, None
    done = len(state.checks)
    try:
        with explained(state.config, state.device, "in the preflight"):
            return _measured(state, data)
    except FileError:
        raise
    except PlanError as error:  # usually out of memory; the check that failed reports it
        made = {check.name for check in state.checks[done:]}
        rest = [name for name in names if name not in made]
        state.checks.append(Check(rest[0], "failed", "stopped", "", f"{error.what}: {error.why}", error.remedy))
        state.skip(rest[1:], "an earlier check ended with an error")
        return None, None


def _measured(state: PreflightState, data: TokenData) -> tuple[float | None, float | None]:
    config, device, checks = state.config, state.device, state.checks
    state.log("building the model and its optimizer")
    context = build(config, device, data)
    given = batch(data, config, 0, config.training.micro_batch).moved(lambda t: t.to(device))
    begin = time.perf_counter()
    checks.append(check_first_loss(context.model, config, given))
    checks += check_gradients(context, given)
    micro = time.perf_counter() - begin
    checks.append(check_decay_groups(context))
    checks.append(check_causality(context.model, given))
    two_steps = 2 * micro * config.training.accumulation
    if two_steps > state.left():
        why = f"two steps of {config.training.accumulation} micro-batches would take about {format_duration(two_steps)}"
        state.skip(STEP_CHECKS, why, "give a longer --time-limit")
        return None, None
    state.log("timing steps")
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    timed, step_seconds = check_step_time(context, state.plan, state.left() / 3)
    checks.append(timed)
    if device.type == "cuda":
        stats = torch.cuda.memory_stats(device)
        peaks = (stats[f"{kind}_bytes.all.peak"] for kind in ("allocated", "reserved"))
        checks.append(check_device_peak(state.plan, *peaks))
    save_seconds = _saved(state, context)
    del context, given
    release_memory(device)
    if device.type != "cuda":
        _probed(state, data, micro)
    state.log("over-fitting one sequence")
    checks.append(check_overfitting(config, data, device, max(state.left(), 1.0)))
    release_memory(device)
    return step_seconds, save_seconds


def _saved(state: PreflightState, context: StepContext) -> float:
    state.log("saving and loading")
    with scratch(_nearest(state.options.out)) as folder:
        saved = round_trip(context, folder / "checkpoints")
    state.checks += check_round_trip(state.plan, saved)
    return saved.save_seconds


def _probed(state: PreflightState, data: TokenData, micro: float) -> None:
    name, need = "peak of a step", 4 * micro * min(2, state.config.training.accumulation)
    if state.config.training.runtime == "compiled":
        state.skip([name], "the tensors of a compiled program cannot be tracked")
    elif need > state.left():
        state.skip([name], f"two tracked steps would take about {format_duration(need)}", "give a longer --time-limit")
    else:
        measured = probe(state.config, data, state.device, state.log)
        state.checks.append(check_phase_peaks(state.plan, measured.track))


def _disk(state: PreflightState) -> None:
    sizes = [check.values["bytes"] for check in state.checks if check.name == "checkpoint size" and check.values]
    each = int(sizes[0] or 0) if sizes else state.plan.memory.checkpoint_bytes
    state.checks.append(check_disk(state.config, _nearest(state.options.out), each))


def _nearest(out: Path) -> Path:
    """The nearest folder at or above `out` that exists: it is on the disk of the run."""
    return next(path for path in (out.absolute(), *out.absolute().parents) if is_folder(path))
