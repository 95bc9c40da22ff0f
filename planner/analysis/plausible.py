"""Findings about numbers far outside anything that was ever trained: mostly a digit or a unit too many."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from planner.finding import Finding
from planner.plan import Plan
from planner.rules import rules
from planner.units import format_count, format_duration, format_fraction, format_money, format_number


def plausibility_findings(plan: Plan) -> Iterator[Finding]:
    """A warning for each number beyond its largest or smallest plausible value, which is said."""
    bounds = rules("ranges")["plausible"]
    yield from _speed(plan, bounds)
    price: float | None = plan.cost.usd_per_gpu_hour
    low, high = bounds["usd_per_gpu_hour"]
    if price is not None and price and not low <= price <= high:
        yield _odd(
            "odd_price",
            f"{format_money(price)} per GPU-hour is outside {format_money(low)} to {format_money(high)}",
            "check the unit of --price-per-gpu-hour: US dollars for one GPU and one hour",
        )
    rows: tuple[tuple[str, str, int, int, str], ...] = (
        ("odd_gpus", "GPUs", plan.config.hardware.gpus, bounds["gpus"], "check --gpus"),
        ("odd_tokens", "training tokens", plan.tokens.requested, bounds["tokens"], "check --tokens and its suffix"),
        ("odd_seq", "tokens per sequence", plan.config.training.seq, bounds["seq"], "check --seq and its suffix"),
        ("odd_batch", "tokens per step", plan.batch.tokens_per_step, bounds["tokens_per_step"],
         "give a smaller --micro-batch, --accumulation or --global-batch-tokens"),
        ("odd_steps", "steps", plan.batch.steps, bounds["steps"], "check --steps, or --tokens and the batch"),
        ("odd_parameters", "parameters", plan.parameters.total, bounds["parameters"], "check the shape"),
    )  # fmt: skip
    for code, what, value, most, remedy in rows:
        if value > most:
            yield _odd(
                code, f"{format_count(value)} {what}: no published run has more than {format_count(most)}", remedy
            )


def _speed(plan: Plan, bounds: dict[str, Any]) -> Iterator[Finding]:
    mfu, seconds = plan.throughput.mfu.value, plan.time.seconds.value
    if mfu is not None and mfu > 1:
        yield _odd(
            "mfu_above_one",
            f"an MFU of {format_fraction(mfu)}: it counts attention in full, of which a causal kernel does half",
            "compare it with other runs of this sequence length only, or check --tflops and --tokens-per-second",
        )
    if mfu is not None and plan.throughput.basis == "given" and mfu < bounds["mfu"]:
        yield _odd(
            "odd_speed",
            f"an MFU of {format_number(100 * mfu)} %: no published run is below {format_fraction(bounds['mfu'])}",
            "check --tflops (in TFLOP/s of one GPU), --mfu or --tokens-per-second (of all GPUs)",
        )
    if seconds is not None and seconds > bounds["seconds"]:
        most = format_duration(bounds["seconds"])
        yield _odd("odd_time", f"the run lasts {format_duration(seconds)}, longer than {most}", "use more GPUs")


def _odd(code: str, message: str, remedy: str) -> Finding:
    return Finding("warning", code, message, remedy)
