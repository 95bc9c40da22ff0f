"""The time account: seconds per step from a given rate, from a measured profile, or from the data sheet."""

from __future__ import annotations

from dataclasses import dataclass

from planner.counts.flops import Flops
from planner.counts.run import Resolved
from planner.formulas import throughput
from planner.interval import UNKNOWN, Interval, exactly
from planner.step_time.bounds import bounds_of, narrowed_by
from planner.step_time.profile_rates import not_timed, step_seconds_from_profile
from planner.step_time.rates import rates_of
from planner.step_time.step_parts import parts_of_step
from planner.step_time.step_seconds import StepSeconds, sum_of_parts

MFU_CONVENTION = "model FLOPs (matrix products with the head, full attention, nothing recomputed) over the dense peak"


@dataclass(frozen=True, slots=True)
class Throughput:
    """Speed of the whole run; `basis` is given, profile, datasheet or unknown, for the reason `why_unknown`.

    parts add up to the seconds of a step; bounds: what each of them waits for. narrowed_by: what would make the
    interval narrower. mfu_causal counts the half of attention that a causal mask leaves (Megatron-LM, nanochat),
    mfu_6nd no attention.
    """

    tokens_per_second: Interval[float]
    tokens_per_second_per_gpu: float | None
    step_seconds: Interval[float]
    mfu: Interval[float]
    mfu_causal: float | None
    mfu_6nd: float | None
    hfu: float | None
    mfu_convention: str
    basis: str
    parts: dict[str, float]
    bounds: dict[str, str]
    narrowed_by: str = ""
    why_unknown: str = ""


def throughput_of(run: Resolved, counted: Flops) -> Throughput:
    """Speed and utilisation; every number None where the hardware's own figures are unknown."""
    peak = peak_flops_rate(run)
    step = _step_seconds(run, counted, peak)
    if isinstance(step, str):
        return Throughput(
            UNKNOWN, None, UNKNOWN, UNKNOWN, None, None, None, MFU_CONVENTION, "unknown", {}, {}, why_unknown=step
        )
    gpus = run.config.hardware.gpus
    speed = step.seconds.map(lambda seconds: throughput.tokens_per_second(run.tokens_per_step, seconds))

    def used(per_token: float) -> Interval[float]:
        return speed.map(lambda rate: throughput.utilisation(per_token, rate, gpus, peak)) if peak else UNKNOWN

    return Throughput(
        tokens_per_second=speed,
        tokens_per_second_per_gpu=speed.map(lambda rate: throughput.tokens_per_second_per_gpu(rate, gpus)).value,
        step_seconds=step.seconds,
        mfu=used(counted.per_token_model),
        mfu_causal=used(counted.per_token_model_causal).value,
        mfu_6nd=used(counted.training_6nd / run.requested_tokens).value,
        hfu=used(counted.per_token_hardware).value,
        mfu_convention=MFU_CONVENTION,
        basis=step.basis,
        parts=step.parts,
        bounds=bounds_of(step.parts, run.config),
        narrowed_by=narrowed_by(run.config, step.basis),
    )


def peak_flops_rate(run: Resolved) -> float | None:
    """Dense peak of the recipe's compute type, FLOP/s; None when the card has none or it is unknown."""
    found = run.gpu.peak_dense_flops.get(run.recipe.compute_dtype) if run.gpu else None
    return float(found) if found else None


def _step_seconds(run: Resolved, counted: Flops, peak: float | None) -> StepSeconds | str:
    """The step, or why its seconds are unknown."""
    config, tokens = run.config, run.tokens_per_step
    hardware = config.hardware
    if hardware.tflops is not None:
        work, requested = counted.training_6nd, run.requested_tokens
        seconds = throughput.step_seconds_from_rate(work, tokens, requested, hardware.gpus, hardware.tflops)
        return StepSeconds(exactly(seconds), "given", {})
    if hardware.tokens_per_second is not None:
        seconds = throughput.step_seconds_from_tokens(tokens, hardware.tokens_per_second)
        return StepSeconds(exactly(seconds), "given", {})
    if hardware.mfu is not None:
        if peak is None:
            return f"the peak in {run.recipe.compute_dtype}, of which MFU is a fraction, is not known"
        seconds = throughput.step_seconds_from_mfu(counted.per_step_model, hardware.gpus, hardware.mfu, peak)
        return StepSeconds(exactly(seconds), "given", {})
    if config.profile is not None:
        why = not_timed(config)
        if not why:
            return step_seconds_from_profile(run, config.profile)
        found = why if run.gpu is None else _from_datasheet(run, counted)  # a card has its published specs beside it
        return f"{why}; {found}" if isinstance(found, str) and run.gpu is not None else found
    if run.gpu is None:
        return "this processor has no data sheet, and no profile of it was measured: gptplan calibrate"
    return _from_datasheet(run, counted)


def _from_datasheet(run: Resolved, counted: Flops) -> StepSeconds | str:
    """Roofline terms of one micro-batch, added; the update; communication between GPUs. Or why there are none."""
    rates = rates_of(run)
    if isinstance(rates, str):
        return rates
    parts = parts_of_step(run, rates)
    if isinstance(parts, str):
        return parts
    least = counted.per_token_model_causal * run.tokens_per_step / (run.config.hardware.gpus * rates.peak)
    return sum_of_parts(parts, "datasheet", rates.width, least)
