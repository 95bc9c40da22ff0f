"""The headline of a plan: its numbers with their intervals, as the plan has them, and the memory that it needs."""

from __future__ import annotations

import pytest

from planner.analysis.headline import HEADLINE, figures, headline, numbers_of
from planner.inputs.draft import draft
from planner.inputs.flags import Flags
from planner.plan import Plan, estimate
from planner.units import format_bytes, format_duration


def plan_of(**flags: str) -> Plan:
    return estimate(draft(Flags(tokens="10B", **flags), as_of="2026-01-31", version="0"))


@pytest.fixture(scope="module")
def plan() -> Plan:
    return plan_of(params="125M", gpu="a100-80gb")


def test_each_figure_is_the_number_of_the_plan(plan: Plan) -> None:
    assert numbers_of(plan) == {
        "tokens_per_second": plan.throughput.tokens_per_second.value,
        "seconds": plan.time.seconds.value,
        "gpu_hours": plan.time.gpu_hours.value,
        "usd": plan.cost.usd.value,
        "peak_requested_bytes": plan.memory.peak_requested_bytes,
        "steps": plan.batch.steps,
    }


def test_a_figure_shows_its_interval_and_an_exact_one_has_none(plan: Plan) -> None:
    texts = {f.key: f.text() for f in figures(plan)}
    assert "…" in texts["usd"] and "tokens/s  (" in texts["tokens_per_second"]
    assert texts["steps"] == f"{plan.batch.steps:,}"
    assert texts["peak_requested_bytes"] == format_bytes(plan.memory.peak_requested_bytes)


def test_the_unit_stands_in_the_title_or_in_the_number_but_not_in_both(plan: Plan) -> None:
    speed = next(f for f in figures(plan) if f.key == "tokens_per_second")
    assert speed.title == "tokens/s" and "tokens/s" not in speed.plain(12.0) and speed.spell(12.0) == "12 tokens/s"


def test_the_headline_ends_with_memory_and_steps_and_marks_what_is_not_settled(plan: Plan) -> None:
    settled, early = dict(headline(plan, settled=True)), dict(headline(plan, settled=False))
    assert list(settled) == [*(f.label for f in figures(plan) if f.key in HEADLINE), "memory", "steps"]
    assert settled["memory"].endswith(f"peak in {plan.memory.peak_phase}") and " of 79.1 GiB" in settled["memory"]
    assert "…" not in settled["memory"] and "…" in early["memory"]
    assert settled["time"].startswith(format_duration(plan.time.seconds.value))


def test_what_is_unknown_says_so() -> None:
    """On a processor without a profile there is no speed, no price, and no interval of either."""
    texts = dict(headline(plan_of(params="125M", gpu="cpu"), settled=True))
    assert texts["speed"] == texts["time"] == texts["cost"] == "unknown"
