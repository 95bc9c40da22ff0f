"""Compares predicted and measured numbers: ratio, tolerance and verdict of each."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Annotated, Literal

from pydantic import Field

from planner.config.run import CPU
from planner.counts.run import rate_at
from planner.interval import Interval
from planner.memory.coverage import not_covered
from planner.plan import Plan

# the bounds are those of a comparison that is read back
_Number = Annotated[float | int, Field(ge=-1e60, le=1e60)]
_Value = _Number | Annotated[str, Field(max_length=1000)] | None
ComparisonVerdict = Literal["within", "outside", "unknown"]
# Tolerance of each kind of number, as a fraction of the predicted one; 0 is exact.
EXACT = 0.0
REQUESTED = 0.001
REQUESTED_CHECKPOINTED = 0.01
ALLOCATED = 0.02
RESERVED = 0.05
DEVICE_USED = 0.05
CHECKPOINT = 0.01
TIME = 0.10
UPPER_BOUND = "an upper bound is predicted"


@dataclass(frozen=True, slots=True)
class MeasuredRank:
    """The memory of one rank: the allocator's peaks and the card's use on a GPU, the process's peak on a CPU. Bytes."""

    device: str
    peak_requested_bytes: int | None
    peak_allocated_bytes: int | None
    peak_reserved_bytes: int | None
    device_used_bytes: int | None
    peak_rss_bytes: int | None


@dataclass(frozen=True, slots=True)
class Measurement:
    """The measurements of a run; None: not measured. Bytes, seconds, FLOPs."""

    device: str
    device_name: str
    torch: str
    parameters: int
    flops_per_step: int | None
    saved_bytes: int | None
    saved_by_operator: dict[str, int]
    peak_requested_bytes: int | None
    peak_phase: str | None
    phases: dict[str, int]
    peak_allocated_bytes: int | None
    peak_reserved_bytes: int | None
    device_used_bytes: int | None
    step_seconds: Interval[float]
    steps_timed: int
    tokens_per_second: float | None
    rates: tuple[tuple[int, float], ...]
    checkpoint_bytes: int | None
    steps_done: int
    tokens_done: int
    finished: bool
    first_loss: float | None
    last_loss: float | None
    data: str
    data_fingerprint: str
    ranks: tuple[MeasuredRank, ...] = ()  # of several, in order; the peaks above are the highest of all


@dataclass(frozen=True, slots=True)
class ComparisonRow:
    """One row: predicted, measured, measured / predicted, tolerance as a fraction, verdict.

    A measured NaN or infinity is outside; it is named in the note, `measured` is None.
    """

    key: str
    unit: str
    predicted: _Value
    measured: _Value
    ratio: _Number | None
    tolerance: Annotated[float, Field(ge=0, le=1e6)]
    verdict: ComparisonVerdict
    timing: bool = False
    note: str = ""


@dataclass(frozen=True, slots=True)
class Comparison:
    """All rows of a run, with device and versions."""

    schema_version: int
    device_name: str
    torch: str
    basis: Annotated[str, Field(pattern="^(given|profile|datasheet|unknown)$")]
    rows: Annotated[tuple[ComparisonRow, ...], Field(max_length=10_000)]

    def outside(self, *, timing: bool) -> list[ComparisonRow]:
        """Rows outside their tolerance; rows of time only if `timing`."""
        return [r for r in self.rows if r.verdict == "outside" and (timing or not r.timing)]


def compare(plan: Plan, measured: Measurement) -> Comparison:
    """The comparison of a plan with the run of its config."""
    m, seen = plan.memory, measured
    time = time_tolerance(plan)
    rows = [
        pair_row("parameters", "1", plan.parameters.total, seen.parameters, EXACT),
        pair_row("model_flops_per_step", "FLOP", plan.flops.per_step_model, seen.flops_per_step, EXACT),
        *_memory_rows(plan, seen),
        _rates(plan, seen),
        pair_row("checkpoint_bytes", "byte", m.checkpoint_bytes, seen.checkpoint_bytes, CHECKPOINT),
        pair_row("step_seconds", "s", plan.throughput.step_seconds.value, seen.step_seconds.value, time, timing=True),
        pair_row("tokens_per_second", "token/s", plan.throughput.tokens_per_second.value, seen.tokens_per_second, time,
             timing=True),
    ]  # fmt: skip
    return Comparison(1, seen.device_name, seen.torch, plan.throughput.basis, tuple(rows))


def _memory_rows(plan: Plan, seen: Measurement) -> list[ComparisonRow]:
    """The rows of bytes. Where the plan has an upper bound of them, what was measured below it is no difference."""
    m, mode = plan.memory, plan.config.training.activation_checkpointing
    requested = REQUESTED if mode == "none" else REQUESTED_CHECKPOINTED
    rows = [
        pair_row("saved_activation_bytes", "byte", m.saved_bytes, seen.saved_bytes, EXACT),
        *(pair_row(f"saved.{op}", "byte", m.saved_by_operator.get(op, 0), seen.saved_by_operator.get(op, 0), EXACT)
          for op in {**m.saved_by_operator, **seen.saved_by_operator} if seen.saved_by_operator),
        _requested(plan, seen, requested),
        *(pair_row(f"peak.{p.phase}", "byte", p.peak_bytes, seen.phases[p.phase], requested)
          for p in m.phases if p.phase in seen.phases),
        _same("peak_phase", m.peak_phase, seen.peak_phase),
        pair_row("peak_allocated_bytes", "byte", m.peak_allocated_bytes.value, seen.peak_allocated_bytes, ALLOCATED),
        pair_row("peak_reserved_bytes", "byte", m.peak_reserved_bytes.value, seen.peak_reserved_bytes, RESERVED),
        pair_row("device_used_bytes", "byte", m.device_used_bytes, seen.device_used_bytes, DEVICE_USED),
    ]  # fmt: skip
    return with_upper_bound(plan, rows)


def with_upper_bound(plan: Plan, rows: list[ComparisonRow]) -> list[ComparisonRow]:
    """Rows of bytes; where the plan has an upper bound of them, what was measured below it is no difference."""
    return rows if not_covered(plan.run) is None else [_of_bound(row) for row in rows]


def _of_bound(row: ComparisonRow) -> ComparisonRow:
    """A row whose prediction is an upper bound: only a measured number above it is a difference."""
    below = isinstance(row.predicted, str) or row.ratio is None or row.ratio <= 1 + row.tolerance
    verdict: ComparisonVerdict = "unknown" if row.verdict == "unknown" or below else row.verdict
    return replace(row, verdict=verdict, note="; ".join(filter(None, (row.note, UPPER_BOUND))))


def _requested(plan: Plan, seen: Measurement, tolerance: float) -> ComparisonRow:
    """Peak of requested bytes. The counter of a GPU's allocator includes the workspaces of matmuls."""
    workspace = plan.memory.workspace_bytes if seen.device != CPU else None
    row = pair_row(
        "peak_requested_bytes",
        "byte",
        plan.memory.peak_requested_bytes + (workspace or 0),
        seen.peak_requested_bytes,
        tolerance,
    )
    return replace(row, note=f"with {workspace:,} bytes of matmul workspaces") if workspace else row


def time_tolerance(plan: Plan) -> float:
    """Tolerance of step time: 10 % if predicted from a measured profile, else the prediction's own interval."""
    width = plan.throughput.step_seconds.width
    return TIME if plan.throughput.basis != "datasheet" or width is None else width


def pair_row(
    key: str,
    unit: str,
    predicted: float | int | None,
    measured: float | int | None,
    tolerance: float,
    *,
    timing: bool = False,
) -> ComparisonRow:
    """A predicted and a measured number with ratio and verdict; unknown where either is None."""
    if predicted is None or measured is None:
        return ComparisonRow(key, unit, predicted, measured, None, tolerance, "unknown", timing)
    if not math.isfinite(measured):
        return ComparisonRow(key, unit, predicted, None, None, tolerance, "outside", timing, f"{measured} was measured")
    ratio = measured / predicted if predicted else None
    if timing and ratio:  # a step that takes k times as long has 1/k of the tokens/s: one verdict for both
        within = max(ratio, 1 / ratio) <= 1 + tolerance
    else:
        within = abs(measured - predicted) <= tolerance * abs(predicted)
    return ComparisonRow(key, unit, predicted, measured, ratio, tolerance, "within" if within else "outside", timing)


def _same(key: str, predicted: str, measured: str | None) -> ComparisonRow:
    if measured is None:
        return ComparisonRow(key, "", predicted, None, None, EXACT, "unknown")
    return ComparisonRow(key, "", predicted, measured, None, EXACT, "within" if predicted == measured else "outside")


def _rates(plan: Plan, seen: Measurement) -> ComparisonRow:
    """The largest difference between a learning rate that was used and the schedule's; it must be 0."""
    if not seen.rates:
        return ComparisonRow("learning_rate_difference", "1", 0.0, None, None, EXACT, "unknown")
    worst = max((abs(rate_at(plan.config, step) - used) for step, used in seen.rates), key=_nan_last)
    row = pair_row("learning_rate_difference", "1", 0.0, worst, EXACT)
    return row if row.note else replace(row, note=f"the largest of {len(seen.rates)} updates")


def _nan_last(value: float) -> float:
    return math.inf if math.isnan(value) else value
