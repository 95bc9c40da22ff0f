"""`compare`: every kind of row, its tolerance and verdict, and the verdict over all rows."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, replace
from functools import cache
from typing import Any

import pytest

from planner.counts.run import rate_at
from planner.inputs.draft import draft
from planner.inputs.flags import Flags
from planner.interval import UNKNOWN, exactly
from planner.plan import Plan, estimate
from planner.runs.comparison import (
    ALLOCATED,
    CHECKPOINT,
    DEVICE_USED,
    REQUESTED,
    REQUESTED_CHECKPOINTED,
    RESERVED,
    TIME,
    UPPER_BOUND,
    ComparisonRow,
    Measurement,
    compare,
)


@cache
def plan_of(**flags: str) -> Plan:
    words = {"params": "125M", "tokens": "1B", "gpu": "a100-80gb", "micro_batch": "4"} | flags
    return estimate(draft(Flags(**words), as_of="2026-11-21", version="0"))


def as_predicted(plan: Plan, **changes: Any) -> Measurement:
    """A machine that did exactly what was predicted, but for the changes."""
    m, t = plan.memory, plan.throughput
    exact = Measurement(
        device="cuda",
        device_name="NVIDIA A100-SXM4-80GB",
        torch="2.9.0",
        parameters=plan.parameters.total,
        flops_per_step=plan.flops.per_step_model,
        saved_bytes=m.saved_bytes,
        saved_by_operator=dict(m.saved_by_operator),
        peak_requested_bytes=m.peak_requested_bytes + (m.workspace_bytes or 0),  # as the allocator counts
        peak_phase=m.peak_phase,
        phases={p.phase: p.peak_bytes for p in m.phases},
        peak_allocated_bytes=m.peak_allocated_bytes.value,
        peak_reserved_bytes=m.peak_reserved_bytes.value,
        device_used_bytes=m.device_used_bytes,
        step_seconds=t.step_seconds,
        steps_timed=10,
        tokens_per_second=t.tokens_per_second.value,
        rates=tuple((k, rate_at(plan.config, k)) for k in (1, 2, 50)),
        checkpoint_bytes=m.checkpoint_bytes,
        steps_done=50,
        tokens_done=50 * plan.batch.tokens_per_step,
        finished=True,
        first_loss=10.8,
        last_loss=4.0,
        data="synthetic",
        data_fingerprint="0",
    )
    return replace(exact, **changes)


def rows_of(plan: Plan, **changes: Any) -> dict[str, ComparisonRow]:
    return {row.key: row for row in compare(plan, as_predicted(plan, **changes)).rows}


def test_a_run_as_predicted_is_within_on_every_line() -> None:
    plan = plan_of()
    found = compare(plan, as_predicted(plan))
    assert {row.verdict for row in found.rows} == {"within"}
    assert found.outside(timing=True) == [] and found.outside(timing=False) == []
    assert (found.device_name, found.torch, found.basis) == ("NVIDIA A100-SXM4-80GB", "2.9.0", "datasheet")
    keys = [row.key for row in found.rows]
    assert len(set(keys)) == len(keys)
    assert {f"saved.{name}" for name in plan.memory.saved_by_operator} <= set(keys)
    assert {f"peak.{p.phase}" for p in plan.memory.phases} <= set(keys)
    ratios = [row.ratio for row in found.rows if row.key not in ("peak_phase", "learning_rate_difference")]
    assert ratios and set(ratios) == {1.0}


@pytest.mark.parametrize("key, field", [("parameters", "parameters"), ("model_flops_per_step", "flops_per_step"),
                                        ("saved_activation_bytes", "saved_bytes")])  # fmt: skip
def test_counts_are_exact(key: str, field: str) -> None:
    predicted = rows_of(plan_of())[key].predicted
    assert isinstance(predicted, int)
    row = rows_of(plan_of(), **{field: predicted + 1})[key]
    assert (row.verdict, row.tolerance, row.measured) == ("outside", 0.0, predicted + 1)


@pytest.mark.parametrize(
    "key, field, tolerance",
    [
        ("peak_requested_bytes", "peak_requested_bytes", REQUESTED),
        ("peak_allocated_bytes", "peak_allocated_bytes", ALLOCATED),
        ("peak_reserved_bytes", "peak_reserved_bytes", RESERVED),
        ("device_used_bytes", "device_used_bytes", DEVICE_USED),
        ("checkpoint_bytes", "checkpoint_bytes", CHECKPOINT),
    ],
)
def test_bytes_have_a_tolerance_on_both_sides(key: str, field: str, tolerance: float) -> None:
    plan = plan_of()
    predicted = rows_of(plan)[key].predicted
    assert isinstance(predicted, int)
    for sign in (1, -1):
        just = predicted + sign * math.floor(predicted * tolerance)
        near, far = (rows_of(plan, **{field: just + sign * more})[key] for more in (0, 2))
        assert (near.verdict, far.verdict, near.tolerance) == ("within", "outside", tolerance)
        assert near.ratio == just / predicted


def test_what_is_measured_below_an_upper_bound_is_no_difference() -> None:
    """Dropout in a compiled program: the plan has a bound, and the run needs less, or more, which is a difference."""
    plan = plan_of(runtime="compiled", dropout="0.1")
    allocated = plan.memory.peak_allocated_bytes.value
    assert allocated is not None
    for factor, verdict in ((0.5, "unknown"), (1.0, "unknown"), (1.1, "outside")):
        changes = {
            "peak_allocated_bytes": round(factor * allocated),
            "saved_bytes": round(factor * plan.memory.saved_bytes),
        }
        rows = rows_of(plan, **changes, peak_phase="backward_end")
        assert {rows[key].verdict for key in ("peak_allocated_bytes", "saved_activation_bytes")} == {verdict}
        assert rows["peak_phase"].verdict == "unknown" and rows["peak_allocated_bytes"].note == UPPER_BOUND
        assert rows["parameters"].verdict == "within"


def test_the_allocator_of_a_gpu_counts_workspaces_and_a_processor_has_none() -> None:
    plan = plan_of()
    m = plan.memory
    assert m.workspace_bytes and m.workspace_bytes > REQUESTED * m.peak_requested_bytes
    gpu = rows_of(plan)["peak_requested_bytes"]
    assert gpu.predicted == m.peak_requested_bytes + m.workspace_bytes and f"{m.workspace_bytes:,}" in gpu.note
    processor = rows_of(plan, device="cpu", peak_requested_bytes=m.peak_requested_bytes)["peak_requested_bytes"]
    assert (processor.predicted, processor.note) == (m.peak_requested_bytes, "")


def test_recomputation_widens_the_tolerance_of_requested_bytes() -> None:
    for mode, tolerance in (("none", REQUESTED), ("full", REQUESTED_CHECKPOINTED)):
        rows = rows_of(plan_of(activation_checkpointing=mode))
        assert rows["peak_requested_bytes"].tolerance == rows["peak.backward_end"].tolerance == tolerance


def test_the_tolerance_of_time_is_the_interval_of_the_prediction() -> None:
    """Of published specs the prediction's own interval; of a speed that was given, 10 %."""
    specs = plan_of()
    middle, high = specs.throughput.step_seconds.value, specs.throughput.step_seconds.high
    assert middle and high
    row = rows_of(specs)["step_seconds"]
    assert row.timing and row.tolerance == pytest.approx(high / middle - 1) and row.tolerance > 2 * TIME
    given = plan_of(tflops="150")
    assert given.throughput.basis == "given" and rows_of(given)["step_seconds"].tolerance == TIME


@pytest.mark.parametrize("flags", [{}, {"tflops": "150"}])
def test_step_time_and_tokens_per_second_of_one_run_have_the_same_verdict(flags: dict[str, str]) -> None:
    plan = plan_of(**flags)
    seconds, tokens = plan.throughput.step_seconds.value, plan.throughput.tokens_per_second.value
    assert seconds and tokens
    factor = 1 + rows_of(plan)["step_seconds"].tolerance
    for slower, verdict in (
        (factor * 0.999, "within"),
        (factor * 1.001, "outside"),
        (1.001 / factor, "within"),
        (0.999 / factor, "outside"),
    ):
        rows = rows_of(plan, step_seconds=exactly(seconds * slower), tokens_per_second=tokens / slower)
        assert {rows["step_seconds"].verdict, rows["tokens_per_second"].verdict} == {verdict}, slower


@pytest.mark.parametrize(
    "key, changes",
    [
        ("model_flops_per_step", {"flops_per_step": None}),
        ("saved_activation_bytes", {"saved_bytes": None}),
        ("peak_requested_bytes", {"peak_requested_bytes": None}),
        ("peak_phase", {"peak_phase": None}),
        ("peak_allocated_bytes", {"peak_allocated_bytes": None}),
        ("learning_rate_difference", {"rates": ()}),
        ("checkpoint_bytes", {"checkpoint_bytes": None}),
        ("step_seconds", {"step_seconds": UNKNOWN}),
        ("tokens_per_second", {"tokens_per_second": None}),
    ],
)
def test_what_was_not_measured_is_unknown(key: str, changes: dict[str, Any]) -> None:
    rows = rows_of(plan_of(), **changes)
    assert (rows[key].verdict, rows[key].measured, rows[key].ratio) == ("unknown", None, None)
    assert rows[key].predicted is not None
    assert {row.verdict for name, row in rows.items() if name != key} == {"within"}


def test_what_was_not_predicted_is_unknown() -> None:
    """On a processor there is no allocator, and without a profile no speed."""
    plan = plan_of(gpu="cpu")
    rows = rows_of(plan, peak_allocated_bytes=5, step_seconds=exactly(1.0), tokens_per_second=10.0)
    for key, measured in (("peak_allocated_bytes", 5), ("step_seconds", 1.0), ("tokens_per_second", 10.0)):
        assert (rows[key].verdict, rows[key].predicted, rows[key].measured) == ("unknown", None, measured)
    assert rows["peak_reserved_bytes"].verdict == "unknown"  # neither


def test_phases_and_operators_that_were_not_seen_have_no_line() -> None:
    rows = rows_of(plan_of(), phases={"backward_end": 1}, saved_by_operator={})
    assert [key for key in rows if key.startswith("peak.")] == ["peak.backward_end"]
    assert rows["peak.backward_end"].verdict == "outside"
    assert not any(key.startswith("saved.") for key in rows)


def test_an_operator_on_one_side_only_counts_as_zero_on_the_other() -> None:
    plan = plan_of()
    name, size = next((n, b) for n, b in plan.memory.saved_by_operator.items() if b)
    seen = {n: b for n, b in plan.memory.saved_by_operator.items() if n != name} | {"surprise": 7}
    rows = rows_of(plan, saved_by_operator=seen)
    lost, more = rows[f"saved.{name}"], rows["saved.surprise"]
    assert (lost.predicted, lost.measured, lost.ratio, lost.verdict) == (size, 0, 0.0, "outside")
    assert (more.predicted, more.measured, more.ratio, more.verdict) == (0, 7, None, "outside")
    both = rows_of(plan, saved_by_operator=dict(plan.memory.saved_by_operator) | {"none": 0})["saved.none"]
    assert (both.predicted, both.ratio, both.verdict) == (0, None, "within")


@pytest.mark.parametrize("measured", [math.nan, math.inf])
def test_a_measurement_that_is_no_number_is_outside_and_has_no_ratio(measured: float) -> None:
    found = compare(plan_of(), as_predicted(plan_of(), step_seconds=exactly(measured), rates=((1, measured),)))
    rows = {row.key: row for row in found.rows}
    for key in ("step_seconds", "learning_rate_difference"):
        assert (rows[key].verdict, rows[key].measured, rows[key].ratio) == ("outside", None, None)
        assert rows[key].note == f"{measured} was measured"
    json.dumps(asdict(found), allow_nan=False)


def test_the_phase_of_the_peak_is_compared_by_name() -> None:
    row = rows_of(plan_of(), peak_phase="save")["peak_phase"]
    assert (row.predicted, row.measured, row.verdict) == (plan_of().memory.peak_phase, "save", "outside")


def test_the_learning_rate_of_every_update_is_exact() -> None:
    plan = plan_of()
    rate = rate_at(plan.config, 2)
    row = rows_of(plan, rates=((1, rate_at(plan.config, 1)), (2, math.nextafter(rate, 1))))["learning_rate_difference"]
    assert row.verdict == "outside" and row.measured == math.nextafter(rate, 1) - rate
    assert row.note == "the largest of 2 updates"


def test_the_verdict_over_all_rows_leaves_time_out_where_asked() -> None:
    """A slow machine is no mistake of the program: `--strict-time` asks for it."""
    slow = compare(plan_of(), as_predicted(plan_of(), step_seconds=exactly(1e6), checkpoint_bytes=1))
    assert [row.key for row in slow.outside(timing=False)] == ["checkpoint_bytes"]
    assert [row.key for row in slow.outside(timing=True)] == ["checkpoint_bytes", "step_seconds"]
