"""Preflight checks of memory and step time, and the estimated time and cost of the run."""

from __future__ import annotations

import time
from pathlib import Path
from statistics import median

import torch

from planner.analysis.fitting import predicted_peak, smallest_change
from planner.counts.run import recipe_of, saves_in_background, steps_of, tokens_per_step
from planner.formulas import cost
from planner.memory.coverage import not_checked, not_covered
from planner.paths import exists
from planner.plan import Plan
from planner.runs.comparison import ALLOCATED, REQUESTED, REQUESTED_CHECKPOINTED, TIME
from planner.runs.preflight import Check
from planner.units import format_bytes, format_duration, format_fraction, format_money, format_rate, told_apart
from reference_trainer.checkpoint.retention import saves_ahead
from reference_trainer.measure.replay import Track
from reference_trainer.preflight.steps import steps_on
from reference_trainer.step.step import StepContext

SETTLING = 2  # untimed: they allocate memory and fill caches
TIMED = 5
MOST_FOR_SAVES = 0.05  # of the time of the run; our guess


# --- memory -------------------------------------------------------------------------------------------------------


def free_bytes(device: torch.device) -> int | None:
    """Free memory of the device for this process, in bytes; None if the system does not report it."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0]) + torch.cuda.memory_reserved(device)
    meminfo = Path("/proc/meminfo")
    if not exists(meminfo):
        return None
    line = next((one for one in meminfo.read_text(encoding="ascii").splitlines() if one.startswith("MemAvailable")), "")
    return int(line.split()[1]) * 1024 if line else None


def check_memory(plan: Plan, free: int | None) -> Check:
    """Check that the predicted peak fits in the free memory; else suggest the smallest change that fits.

    free: from `free_bytes`. On a GPU this process already has its CUDA context, so `free` does not include it.
    """
    peak = predicted_peak(plan.run, replay=True)
    need, room = told_apart(format_bytes, peak, free)
    measured, expected = f"{room} free now", f"{need} predicted, in {plan.memory.peak_phase}"
    values = {"free_bytes": free, "predicted_peak_bytes": peak, "peak_phase": plan.memory.peak_phase}
    if free is None:
        why = "this system does not report its free memory"
        return Check("memory", "skipped", measured, expected, why, "", values)
    if peak <= free:
        return Check("memory", "ok", measured, expected, values=values)
    found = smallest_change(plan.run, free)
    mend = "no micro-batch fits: use a larger device, a smaller model or another --recipe"
    if found is not None:
        mend = f"{found.command_line} (the same global batch): predicted {format_bytes(found.peak_bytes)}"
    unknown, low = _unknown_part(plan), plan.memory.peak_allocated_bytes.low
    if unknown is not None and (plan.memory.least_bytes if low is None else low) <= free:
        why = f"whether it fits is unknown: the memory of {unknown} is not predicted exactly"
        return Check("memory", "warning", measured, expected, why, mend, values)
    if (plan.memory.peak_allocated_bytes.value or peak) <= free:
        why = "it fits only if the allocator frees its cache and retries, which makes steps slow"
        return Check("memory", "warning", measured, expected, why, mend, values)
    return Check("memory", "failed", measured, expected, "the first step would run out of memory", mend, values)


def _unknown_part(plan: Plan) -> str | None:
    """What the plan has only a bound or an interval of the memory of; None where it is predicted exactly."""
    return not_covered(plan.run) or not_checked(plan.run)


def check_phase_peaks(plan: Plan, track: Track) -> Check:
    """Compare the memory peak of each phase of two real steps, tracked per tensor on a CPU, with the prediction."""
    peaks, mode = track.by_phase(), plan.config.training.activation_checkpointing
    tolerance = REQUESTED if mode == "none" else REQUESTED_CHECKPOINTED
    pairs = {p.phase: (p.peak_bytes, peaks[p.phase]) for p in plan.memory.phases if p.phase in peaks}
    errors = {phase: found / predicted - 1 for phase, (predicted, found) in pairs.items()}
    worst = max(errors, key=lambda phase: abs(errors[phase]))
    values: dict[str, float | int | str | bool | None] = {
        f"{phase}_{kind}_bytes": size
        for phase, pair in pairs.items()
        for kind, size in zip(("predicted", "measured"), pair, strict=True)
    }
    top = track.peak
    measured = f"{format_bytes(top.peak_bytes)} in {top.phase}; {len(pairs)} phases to ±{_off(abs(errors[worst]))}"
    expected = f"{format_bytes(plan.memory.peak_requested_bytes)} in {plan.memory.peak_phase}, ±{_off(tolerance)}"
    if abs(errors[worst]) <= tolerance:
        return Check("peak of a step", "ok", measured, expected, values=values)
    why = f"{worst}: predicted {format_bytes(pairs[worst][0])}, measured {format_bytes(pairs[worst][1])}"
    return Check("peak of a step", "warning", measured, expected, why, "compare: gptplan trace RUN_TOML", values)


def check_device_peak(plan: Plan, allocated: int, reserved: int) -> Check:
    """Compare the peaks counted by the CUDA allocator with the prediction."""
    m = plan.memory
    predicted, predicted_reserved = m.peak_allocated_bytes.value, m.peak_reserved_bytes.value
    measured = f"{format_bytes(allocated)} allocated, {format_bytes(reserved)} reserved"
    expected = f"{format_bytes(predicted)} allocated, {format_bytes(predicted_reserved)} reserved"
    values = {
        "allocated_bytes": allocated,
        "reserved_bytes": reserved,
        "predicted_allocated_bytes": predicted,
        "predicted_reserved_bytes": predicted_reserved,
    }
    if predicted is None:
        return Check(
            "peak of a step", "skipped", measured, "unknown", "no peak is predicted for this device", "", values
        )
    if abs(allocated / predicted - 1) <= ALLOCATED:
        return Check("peak of a step", "ok", measured, expected, values=values)
    low, high = m.peak_allocated_bytes.low, m.peak_allocated_bytes.high
    if _unknown_part(plan) is not None and low is not None and high is not None and low <= allocated <= high:
        within = f"{format_bytes(low)} to {format_bytes(high)} allocated"
        return Check("peak of a step", "ok", measured, within, values=values)
    why = f"allocated {_off(allocated / predicted - 1)} off, beyond {_off(ALLOCATED)}"
    return Check("peak of a step", "warning", measured, expected, why, "compare: gptplan trace RUN_TOML", values)


def _off(fraction: float) -> str:
    return "0 %" if fraction == 0 else format_fraction(fraction)


# --- time ---------------------------------------------------------------------------------------------------------


def check_step_time(context: StepContext, plan: Plan, seconds: float) -> tuple[Check, float | None]:
    """Check the median time of a few real steps against the prediction. Returns the median too."""
    count = SETTLING + TIMED
    taken = steps_on(context, 1, min(count, steps_of(context.config)), time.monotonic() + seconds)
    settling = min(SETTLING, len(taken) - 1)
    kept = [each for _, each in taken[settling:]]
    middle = median(kept)
    t = plan.throughput
    measured = f"{format_duration(middle)}, {format_rate(tokens_per_step(context.config) / middle)} ({len(kept)} timed)"
    expected = f"{format_duration(t.step_seconds.value)}, {format_rate(t.tokens_per_second.value)}"
    values = {
        "step_seconds": middle,
        "predicted_step_seconds": t.step_seconds.value,
        "tokens_per_second": tokens_per_step(context.config) / middle,
        "steps_timed": len(kept),
    }
    low, predicted, high = t.step_seconds.low, t.step_seconds.value, t.step_seconds.high
    if low is None or predicted is None or high is None:
        why = "no step time is predicted for this model on this device; the measured one is used"
        return Check("step time", "skipped", measured, "unknown", why, "", values), middle
    if t.basis != "datasheet":
        low, high = predicted * (1 - TIME), predicted * (1 + TIME)
    if low <= middle <= high:
        return Check("step time", "ok", measured, expected, values=values), middle
    why = f"outside {format_duration(low)} to {format_duration(high)}: other work on the machine, or a wrong prediction"
    return Check("step time", "warning", measured, expected, why, "repeat on an idle machine", values), middle


# --- the whole run ------------------------------------------------------------------------------------------------


def estimate_whole_run(plan: Plan, step_seconds: float, save_seconds: float | None) -> Check:
    """Time and cost of all steps and saves at the measured speed, compared with the prediction.

    Evaluations, start, compilation, and saves in the background, which nothing here times, are those of the plan.
    """
    config, steps = plan.config, steps_of(plan.config)
    saves = saves_ahead(config, 0, steps).saves
    not_timed = {name: part for name, part in plan.time.parts.items() if name not in ("steps", "checkpoints")}
    saving = saves * (save_seconds or 0.0)
    if saves_in_background(config):
        saving = plan.time.parts.get("checkpoints", 0.0)
    seconds = steps * step_seconds + saving + sum(not_timed.values())
    hours = float(cost.gpu_hours(seconds, config.hardware.gpus))
    price = plan.cost.usd_per_gpu_hour
    usd = None if price is None else float(cost.cost_of_hours(hours, price))

    def both(time_taken: float | None, money: float | None) -> str:
        return format_duration(time_taken) + ("" if money is None else f", {format_money(money)}")

    measured, expected = both(seconds, usd), both(plan.time.seconds.value, plan.cost.usd.value)
    values = {
        "seconds": seconds,
        "saving_seconds": saving,
        "usd": usd,
        "predicted_seconds": plan.time.seconds.value,
        "predicted_usd": plan.cost.usd.value,
        "recipe": recipe_of(config).id,
    }
    if saving > MOST_FOR_SAVES * seconds:
        why = f"{saves} saves of {format_duration(save_seconds)} take {format_fraction(saving / seconds)} of the time"
        return Check(
            "whole run", "warning", measured, expected, why, "raise --checkpoint-every, or use --async-save", values
        )
    return Check("whole run", "ok", measured, expected, values=values)
