"""All layouts of one placement as arrays over micro-batches and choices, and the best of them with its exact peak."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from planner.analysis.search.envelope import Integers
from planner.analysis.search.peaks import PeakTable
from planner.analysis.search.space import Choice, Placement
from planner.analysis.search.times import Floats
from planner.config.run import RunConfig
from planner.counts.flops import flops_of
from planner.counts.run import Resolved
from planner.formulas import cost, throughput
from planner.inputs.search import SearchLimits
from planner.memory.device import context_bytes, workspaces_bytes
from planner.memory.replicas import nccl_bytes
from planner.plan import cost_of, energy_kwh, hourly_price, time_of
from planner.presets import Gpu
from planner.rules import rules
from planner.step_time.throughput import throughput_of

LayoutMask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Layout:
    """A layout: its config, predicted seconds and dollars of the whole run, kWh, bytes of the device and usable ones.

    None is unknown.
    """

    config: RunConfig
    step_seconds: float
    seconds: float
    usd: float | None
    energy_kwh: float | None
    used_bytes: int
    usable_bytes: int

    @property
    def fraction_used(self) -> float:
        """Of the usable memory."""
        return self.used_bytes / self.usable_bytes


class Area:
    """The layouts of a placement. `used` begins as a bound; a choice's column is replaced when it is needed exactly."""

    def __init__(
        self, placement: Placement, run: Resolved, choices: Sequence[Choice], step_seconds: Floats, table: PeakTable
    ) -> None:
        """run: the placement's. step_seconds: [micro-batches, choices]."""
        assert run.gpu is not None and run.gpu.usable_bytes is not None
        self.placement, self.run, self.choices, self.table = placement, run, choices, table
        self.gpu: Gpu = run.gpu
        self.usable: int = run.gpu.usable_bytes
        self.micro: Integers = np.array(placement.micro_batches, dtype=np.int64)
        self.step_seconds = step_seconds
        self.used = used_bytes(run, self.gpu, table.bounds(run, choices, self.micro, placement.sequences))
        self.exact: set[int] = set()
        self.gpus = run.config.hardware.gpus
        self.hourly = hourly_price(run).value

    def seconds(self, step: Any) -> Any:
        """Seconds of all steps."""
        speed = throughput.tokens_per_second(self.run.tokens_per_step, step)
        return throughput.run_seconds(self.run.trained_tokens, speed)

    def usd(self, step: Any) -> Any:
        """Dollars of all steps; None where the card has no price."""
        if self.hourly is None:
            return None
        return cost.cost_of_hours(cost.gpu_hours(self.seconds(step), self.gpus), self.hourly)

    def within(self, limits: SearchLimits) -> LayoutMask:
        """The layouts whose steps keep the limits of time and cost."""
        found = np.ones(self.step_seconds.shape, dtype=bool)
        if limits.seconds is not None:
            found &= self.seconds(self.step_seconds) <= limits.seconds
        if limits.usd is not None:
            usd = self.usd(self.step_seconds)
            found &= usd <= limits.usd if usd is not None else False
        return found

    def first_rough(self, allowed: LayoutMask, most: float, by_room: bool = False) -> Layout | None:
        """As `first`, by the bounds and the time of the steps alone: at least as good; None where nothing is left."""
        at = self._first(allowed & (self.used <= most), by_room)
        return None if at is None else self._layout(*at)

    def first(self, limits: SearchLimits, most: float, by_room: bool = False) -> Layout | None:
        """The layout with the fastest step within the limits that uses `most` bytes at most, its whole run timed.

        Of equal ones the one that uses least. by_room: the one that uses least, of equal ones the fastest. None where
        there is none.
        """
        allowed = self.within(limits)
        while True:
            at = self._first(allowed & (self.used <= most), by_room)
            if at is None:
                return None
            if at[1] not in self.exact:
                self.make_exact(at[1])
                continue
            found = self._whole(self._layout(*at))
            if keeps(found, limits):
                return found
            if not by_room:
                return None  # what a run does beside its steps makes no slower step the faster run
            allowed[at] = False

    def _whole(self, layout: Layout) -> Layout:
        """The layout with the time, the cost and the energy of the whole run, as a plan has them."""
        run = replace(self.run, config=layout.config)
        time = time_of(run, throughput_of(run, flops_of(run)))
        spent = cost_of(run, time)
        assert time.seconds.value is not None
        return replace(layout, seconds=time.seconds.value, usd=spent.usd.value, energy_kwh=spent.energy_kwh)

    def make_exact(self, column: int) -> None:
        """Replace the bounds of a choice by its peaks."""
        peaks = self.table.peaks(self.run, self.choices[column], self.micro, self.placement.sequences)
        self.used[:, column] = used_bytes(self.run, self.gpu, peaks)
        self.exact.add(column)

    def _first(self, open_: LayoutMask, by_room: bool) -> tuple[int, int] | None:
        if not open_.any():
            return None
        keys: list[Any] = [self.step_seconds, self.used]
        if by_room:
            keys.reverse()
        least = np.where(open_, keys[0], np.inf)
        ties = least == least.min()
        at = int(np.where(ties, keys[1], np.inf).argmin())
        row, column = divmod(at, len(self.choices))
        return row, column

    def _layout(self, row: int, column: int) -> Layout:
        step = float(self.step_seconds[row, column])
        return Layout(
            self.placement.with_steps(int(self.micro[row]), self.choices[column]),
            step,
            self.seconds(step),
            self.usd(step),
            energy_kwh(self.gpu, cost.gpu_hours(self.seconds(step), self.gpus)),
            int(self.used[row, column]),
            self.usable,
        )


def keeps(layout: Layout, limits: SearchLimits) -> bool:
    """Whether a layout keeps the limits of time and cost."""
    dear = limits.usd is not None and (layout.usd is None or layout.usd > limits.usd)
    return not dear and (limits.seconds is None or layout.seconds <= limits.seconds)


def used_bytes(run: Resolved, gpu: Gpu, requested: Integers) -> Integers:
    """Bytes of the device by the rule for allocated bytes, CUDA context and NCCL's buffers included."""
    rule = rules("roofline")["memory"]
    outside = workspaces_bytes(gpu) + context_bytes(gpu) + (nccl_bytes(run).value or 0)
    found: Integers = np.rint(requested * rule["rounding"]).astype(np.int64) + outside
    return found
