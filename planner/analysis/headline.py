"""The few numbers of a plan that people compare: its speed, time, cost, memory and length, with their intervals."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from planner.analysis.fitting import needed_bytes
from planner.plan import Plan
from planner.units import (
    format_bytes,
    format_count_exact,
    format_duration,
    format_money,
    format_number,
    format_rate,
)

HEADLINE = ("tokens_per_second", "seconds", "usd")


@dataclass(frozen=True, slots=True)
class Figure:
    """One number in base units, None where unknown; how it is written; the ends of its interval."""

    key: str
    label: str
    value: float | None
    low: float | None
    high: float | None
    spell: Callable[[float | None], str]

    @property
    def title(self) -> str:
        """The label with the unit that `plain` leaves out."""
        return "tokens/s" if self.key == "tokens_per_second" else self.label

    def plain(self, x: float | None) -> str:
        """A number of this kind without the unit that the title says."""
        return _short(self.spell(x))

    def text(self) -> str:
        """The number with its interval, where it has one."""
        low, high = self.plain(self.low), self.plain(self.high)
        return self.spell(self.value) + (f"  ({low} … {high})" if low != high else "")


def figures(plan: Plan) -> tuple[Figure, ...]:
    """The numbers of a plan, in reading order."""
    t, time, c, m = plan.throughput, plan.time, plan.cost, plan.memory
    peak, steps = m.peak_requested_bytes, plan.batch.steps
    return (
        Figure("tokens_per_second", "speed", t.tokens_per_second, t.tokens_per_second_low, t.tokens_per_second_high,
               format_rate),
        Figure("seconds", "time", time.seconds, time.seconds_low, time.seconds_high, format_duration),
        Figure("gpu_hours", "GPU-hours", time.gpu_hours, time.gpu_hours_low, time.gpu_hours_high, format_number),
        Figure("usd", "cost", c.usd, c.usd_low, c.usd_high, format_money),
        Figure("peak_requested_bytes", "peak", peak, peak, peak, format_bytes),
        Figure("steps", "steps", steps, steps, steps, format_count_exact),
    )  # fmt: skip


def headline(plan: Plan, settled: bool) -> list[tuple[str, str]]:
    """Label and text of what decides; the memory beside what is usable, with … while it is not settled."""
    found = [(figure.label, figure.text()) for figure in figures(plan) if figure.key in HEADLINE]
    m = plan.memory
    needs = f"{format_bytes(needed_bytes(m))}{'' if settled else ' …'} of {format_bytes(m.usable_bytes)}"
    steps = f"{format_count_exact(plan.batch.steps)} of {format_count_exact(plan.batch.tokens_per_step)} tokens"
    return [*found, ("memory", f"{needs}, peak in {m.peak_phase}"), ("steps", steps)]


def numbers_of(plan: Plan) -> Mapping[str, float | None]:
    """The values alone."""
    return {figure.key: figure.value for figure in figures(plan)}


def _short(text: str) -> str:
    """A number without the unit that is said beside it."""
    return text.removesuffix(" tokens/s")
