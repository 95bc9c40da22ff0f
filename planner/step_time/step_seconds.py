"""What both predictions of a step's time return: its seconds with an interval, what they rest on, and their parts."""

from __future__ import annotations

from dataclasses import dataclass

from planner.formulas import throughput
from planner.interval import Interval


@dataclass(frozen=True, slots=True)
class StepSeconds:
    """Seconds of one optimizer step, what they rest on, and the parts that add up to them."""

    seconds: Interval[float]
    basis: str
    parts: dict[str, float]


def sum_of_parts(parts: dict[str, float], basis: str, width: float, least: float = 0.0) -> StepSeconds:
    """The step whose parts run one after the other; its interval: their sum over and times `width`, above `least`."""
    seconds = sum(parts.values())
    low, high = throughput.quickest_step(seconds, width, min(least, seconds)), throughput.slowest_step(seconds, width)
    return StepSeconds(Interval(low, seconds, high), basis, parts)
