"""The few numbers of a plan that people compare: its speed, time, cost, memory and length, with their intervals."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from planner.analysis.fitting import needs
from planner.interval import Interval, exactly
from planner.plan import Plan
from planner.units import (
    format_bytes,
    format_count,
    format_count_exact,
    format_duration,
    format_money,
    format_number,
    format_rate,
)

HEADLINE = ("tokens_per_second", "seconds", "usd")


@dataclass(frozen=True, slots=True)
class Figure:
    """One number in base units with its interval, and how it is written."""

    key: str
    label: str
    number: Interval[int] | Interval[float]
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
        low, high = self.plain(self.number.low), self.plain(self.number.high)
        return self.spell(self.number.value) + (f"  ({low} … {high})" if low != high else "")


def figures(plan: Plan) -> tuple[Figure, ...]:
    """The numbers of a plan, in reading order."""
    return (
        Figure("tokens_per_second", "speed", plan.throughput.tokens_per_second, format_rate),
        Figure("seconds", "time", plan.time.seconds, format_duration),
        Figure("gpu_hours", "GPU-hours", plan.time.gpu_hours, format_number),
        Figure("usd", "cost", plan.cost.usd, format_money),
        Figure("peak_requested_bytes", "peak", exactly(plan.memory.peak_requested_bytes), format_bytes),
        Figure("steps", "steps", exactly(plan.batch.steps), format_count_exact),
    )


def headline(plan: Plan, settled: bool) -> list[tuple[str, str]]:
    """Label and text of speed, time, cost, memory, steps and active parameters; … marks memory not simulated yet."""
    found = [(figure.label, figure.text()) for figure in figures(plan) if figure.key in HEADLINE]
    m = plan.memory
    needed, of, usable = needs(plan).partition(" of ")
    needed = f"{needed}{'' if settled else ' …'}{of}{usable}"
    rows = [*found, ("memory", f"{needed}, peak in {m.peak_phase}"), ("steps", _steps(plan))]
    if plan.config.model.moe is not None:
        active, total = format_count(plan.parameters.active), format_count(plan.parameters.total)
        rows.append(("params", f"{active} active of {total}"))
    return rows


def _steps(plan: Plan) -> str:
    return f"{format_count_exact(plan.batch.steps)} of {format_count_exact(plan.batch.tokens_per_step)} tokens"


def numbers_of(plan: Plan) -> Mapping[str, float | None]:
    """The values only."""
    return {figure.key: figure.number.value for figure in figures(plan)}


def _short(text: str) -> str:
    """A number without the unit that is said beside it."""
    return text.removesuffix(" tokens/s")
