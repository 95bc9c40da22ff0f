"""What holds in every plan: sums, intervals, verdicts against their numbers, and what grows when an option does.

The plans are those of random command lines (tests/stability/drawing.py), 100 of them; `make fuzz` tries 2,000.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from planner.analysis.findings import findings
from planner.config.run import RunConfig
from planner.counts.flops import operators_of
from planner.document import document
from planner.errors import PlanError
from planner.inputs.draft import draft
from planner.inputs.flags import Flags
from planner.inputs.run_toml import config_from, config_text
from planner.interval import Interval
from planner.plan import Plan, estimate
from tests.examples import TIMES
from tests.stability.drawing import command

SEEDS = st.integers(0, 2**32)
MANY = settings(max_examples=100 * TIMES, deadline=None, suppress_health_check=list(HealthCheck))
FEW = settings(max_examples=25 * TIMES, deadline=None, suppress_health_check=list(HealthCheck))


def drafted(texts: dict[str, str], base: RunConfig | None = None) -> RunConfig:
    return draft(Flags(**texts), as_of="2026-11-21", version="test", base=base)


def random_texts(seed: int) -> dict[str, str]:
    """The flags of the first random command line from this seed that makes a plan."""
    rng = random.Random(seed)
    while True:
        words, texts = command(rng)[2:], {}
        while words:
            name = words.pop(0)[2:].replace("-", "_")
            texts.update({"tied": name} if name in ("tied", "untied") else {name: words.pop(0)})
        try:
            drafted(texts)
        except PlanError:
            continue
        return texts


def plan_of(seed: int) -> Plan:
    return estimate(drafted(random_texts(seed)))


def intervals(value: Any) -> Iterator[Interval[float]]:
    if isinstance(value, Interval):
        yield value
    elif is_dataclass(value):
        for field in fields(value):
            yield from intervals(getattr(value, field.name))


def numbers(value: Any) -> Iterator[float]:
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list | tuple):
        for entry in value:
            yield from numbers(entry)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield value


@MANY
@given(SEEDS)
def test_parts_add_up_to_their_totals(seed: int) -> None:
    plan = plan_of(seed)
    m, counts, per_step = plan.memory, plan.parameters, plan.batch.tokens_per_step
    assert sum(m.at_peak.values()) == m.peak_requested_bytes == max(p.peak_bytes for p in m.phases)
    assert all(sum(phase.at_peak.values()) == phase.peak_bytes for phase in m.phases)
    assert sum(m.saved_by_operator.values()) == m.saved_bytes
    assert counts.embedding + counts.non_embedding == counts.total >= counts.active > 0
    operators = operators_of(plan.config)
    assert sum(o.model for o in operators) == plan.flops.per_token_model
    assert sum(o.hardware for o in operators) == plan.flops.per_token_hardware
    assert plan.flops.per_token_model * per_step == plan.flops.per_step_model
    if plan.throughput.parts:
        assert plan.throughput.step_seconds.value == pytest.approx(sum(plan.throughput.parts.values()), rel=1e-9)


@MANY
@given(SEEDS)
def test_length_time_and_cost_come_from_the_same_whole_steps(seed: int) -> None:
    plan = plan_of(seed)
    b, tokens, time, cost = plan.batch, plan.tokens, plan.time, plan.cost
    t, gpus = plan.config.training, plan.config.hardware.gpus
    assert b.sequences_per_step == t.micro_batch * t.accumulation * gpus
    assert b.steps * b.tokens_per_step == tokens.trained and 100 * tokens.trained >= 99 * tokens.requested
    assert tokens.trained - tokens.requested < b.tokens_per_step
    if plan.throughput.step_seconds.value is not None:
        assert time.parts["steps"] == pytest.approx(b.steps * plan.throughput.step_seconds.value, rel=1e-9)
        for end, parts in (("low", time.parts_low), ("value", time.parts), ("high", time.parts_high)):
            assert getattr(time.seconds, end) == pytest.approx(sum(parts.values()), rel=1e-12)
            assert min(parts.values()) >= 0
        assert time.gpu_hours.value == pytest.approx(gpus * time.seconds.value / 3600, rel=1e-9)
    if cost.usd.value is not None:
        assert cost.usd_per_gpu_hour is not None and time.gpu_hours.value is not None
        assert cost.usd.value == pytest.approx(cost.usd_per_gpu_hour * time.gpu_hours.value, rel=1e-9)


@MANY
@given(SEEDS)
@example(35)  # a small model at 8,192 tokens on an L4: above 100 % by the convention of full attention
def test_each_number_is_finite_in_its_interval_and_possible(seed: int) -> None:
    plan = plan_of(seed)
    for interval in intervals(plan):
        ends = (interval.low, interval.value, interval.high)
        assert ends == (None, None, None) or 0 <= ends[0] <= ends[1] <= ends[2]  # type: ignore[operator]
    assert all(math.isfinite(number) for number in numbers(document(plan, findings(plan))))
    mfu, hfu = plan.throughput.mfu.value, plan.throughput.hfu
    if mfu is not None and hfu is not None:
        assert 0 < mfu <= hfu
        # MFU counts attention in full; what a causal kernel really does may not exceed the card's peak
        assert mfu * plan.flops.per_token_model_causal / plan.flops.per_token_model <= 1 + 1e-9
        assert (mfu > 1) == any(f.code == "mfu_above_one" for f in findings(plan))
    assert all(0 <= point.lr <= plan.schedule.peak_lr for point in plan.schedule.points)
    assert 0 <= plan.batch.warmup_steps <= plan.batch.steps


@FEW
@given(SEEDS, st.booleans())
def test_the_verdict_is_that_of_the_bytes(seed: int, replay: bool) -> None:
    plan = estimate(drafted(random_texts(seed)), replay=replay)
    m = plan.memory
    codes = {finding.code for finding in findings(plan)}
    assert ("does_not_fit" in codes) == (m.fits is False)
    assert not (m.fits and "does_not_fit" in codes)
    if m.fits is None or m.usable_bytes is None:
        return
    reserved, context = m.peak_reserved_bytes, m.context_bytes or 0
    if m.fits:
        assert m.peak_requested_bytes + context <= m.usable_bytes
        assert m.device_used_bytes is None or m.device_used_bytes <= m.usable_bytes or "allocator_thrash" in codes
    elif reserved.value is not None:
        assert reserved.value + context > m.usable_bytes


@FEW
@given(SEEDS)
def test_what_grows_when_an_option_does(seed: int) -> None:
    base = drafted(random_texts(seed) | {"price_per_gpu_hour": "2"})
    plan = estimate(base)
    t = base.training
    length = {"tokens": str(2 * t.tokens)} if t.tokens else {"steps": str(2 * (t.steps or 1))}
    longer = estimate(drafted(length, base))
    dearer = estimate(drafted({"price_per_gpu_hour": "4"}, base))
    wider = estimate(drafted({"micro_batch": str(2 * t.micro_batch), "accumulation": str(t.accumulation)}, base))
    assert longer.batch.steps >= 2 * plan.batch.steps - 1 and longer.memory == plan.memory
    assert wider.memory.peak_requested_bytes > plan.memory.peak_requested_bytes or base.model.moe is not None
    assert wider.batch.tokens_per_step == 2 * plan.batch.tokens_per_step
    seconds, usd = plan.time.seconds.value, plan.cost.usd.value
    if seconds is not None and longer.time.seconds.value is not None:
        assert longer.time.seconds.value > seconds
    if usd is not None and longer.cost.usd.value is not None:
        assert longer.cost.usd.value > usd and dearer.cost.usd.value == pytest.approx(2 * usd, rel=1e-12)


@FEW
@given(SEEDS)
def test_a_plan_is_a_function_of_its_file(seed: int) -> None:
    import tomllib

    config = drafted(random_texts(seed))
    again = config_from(tomllib.loads(config_text(config)), "run.toml")
    assert again == config and estimate(again) == estimate(config)
