"""A plan beside somebody's log: speed, memory, loss, and whether the log is of that run at all."""

from __future__ import annotations

import math
from dataclasses import replace

from planner.config.run import RunConfig
from planner.counts.run import sequences_per_step, steps_of
from planner.plan import Plan
from planner.runs.comparison import (
    ALLOCATED,
    DEVICE_USED,
    EXACT,
    RESERVED,
    Comparison,
    ComparisonRow,
    pair_row,
    time_tolerance,
    with_upper_bound,
)
from planner.runs.logs.read import RunLog


def compare_log(plan: Plan, log: RunLog) -> Comparison:
    """The comparison of a plan with a log. What the log does not say is unknown; steps of another run are outside."""
    config, memory, speed = plan.config, plan.memory, plan.throughput
    seconds, note = _step_seconds(config, log)
    tokens = _tokens_per_second(config, log, seconds)
    time = time_tolerance(plan)
    rows = [
        pair_row("steps", "1", steps_of(config), log.steps, EXACT),
        pair_row("sequences_per_step", "1", sequences_per_step(config), log.sequences_per_step, EXACT),
        replace(pair_row("step_seconds", "s", speed.step_seconds.value, seconds, time, timing=True), note=note),
        pair_row("tokens_per_second", "token/s", speed.tokens_per_second.value, tokens, time, timing=True),
        *with_upper_bound(plan, [
            pair_row("peak_allocated_bytes", "byte", memory.peak_allocated_bytes.value, log.allocated_bytes, ALLOCATED),
            pair_row("peak_reserved_bytes", "byte", memory.peak_reserved_bytes.value, log.reserved_bytes, RESERVED),
            pair_row("device_used_bytes", "byte", memory.device_used_bytes, log.device_bytes, DEVICE_USED),
        ]),
        _first_loss(config, log),
        ComparisonRow("last_loss", "1", None, _finite(log.last_loss), None, EXACT, "unknown", note=_diverged(log)),
    ]  # fmt: skip
    of = f"{config.hardware.gpus} × {config.hardware.gpu}, the log of {log.title}"
    said = {"steps", "sequences_per_step"}
    shown = [row for row in rows if row.measured is not None or row.key not in said]
    return Comparison(1, of, "", speed.basis, tuple(shown))


def _step_seconds(config: RunConfig, log: RunLog) -> tuple[float | None, str]:
    """Seconds of an update, and where they come from if the log does not say them."""
    if log.step_seconds is not None:
        return log.step_seconds, ""
    if log.micro_seconds is not None:
        times = config.training.accumulation
        return log.micro_seconds * times, f"{times} times the micro-batch that the log shows"
    tokens = _tokens_per_second(config, log, None)
    if tokens is not None:
        return sequences_per_step(config) * config.training.seq / tokens, "from the tokens per second in the log"
    if log.run_step_seconds is not None:
        return log.run_step_seconds, "the whole run over its steps: evaluations and saves are in it"
    return None, ""


def _tokens_per_second(config: RunConfig, log: RunLog, seconds: float | None) -> float | None:
    """Tokens per second of the whole run."""
    if log.tokens_per_second is not None:
        return log.tokens_per_second
    if log.tokens_per_second_per_gpu is not None:
        return log.tokens_per_second_per_gpu * config.hardware.gpus
    return None if not seconds else sequences_per_step(config) * config.training.seq / seconds


def _first_loss(config: RunConfig, log: RunLog) -> ComparisonRow:
    """An untrained model gives every token the same chance; no verdict, for a log may begin later."""
    expected = math.log(config.model.tokenizer_vocab or config.model.vocab)
    measured = _finite(log.first_loss)
    ratio = None if measured is None else measured / expected
    begins = "" if log.first_step in (None, 1) else f"; the log begins at step {log.first_step}"
    note = f"ln(vocab), of an untrained model{begins}"
    return ComparisonRow("first_loss", "1", expected, measured, ratio, EXACT, "unknown", note=note)


def _diverged(log: RunLog) -> str:
    return "" if log.last_loss is None or math.isfinite(log.last_loss) else f"the log's last loss is {log.last_loss}"


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
