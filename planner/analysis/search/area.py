"""The layouts of one placement: the best of them, with its exact peak and its verdict."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from planner.analysis.search.batches import (
    LayoutMask,
    PlacementBatch,
    PlacementTerms,
    allocated_bytes,
    seconds_of_steps,
)
from planner.analysis.search.peaks import PeakTable
from planner.config.run import RunConfig
from planner.counts.flops import flops_of
from planner.formulas import cost
from planner.inputs.search import SearchLimits
from planner.memory.verdicts import is_known_to_fit
from planner.plan import cost_of, energy_kwh, time_of
from planner.step_time.throughput import throughput_of


@dataclass(frozen=True, slots=True)
class Layout:
    """A layout: its config, predicted seconds and dollars of the whole run, kWh, bytes of the device and usable ones.

    fits: True where that is known, None where the verdict is open: it fits by what is expected, not by what is certain.
    why_open: the reason of an open verdict, of layouts that are shown.
    """

    config: RunConfig
    step_seconds: float
    seconds: float
    usd: float | None
    energy_kwh: float | None
    used_bytes: int
    usable_bytes: int
    fits: bool | None = None
    why_open: str = ""

    @property
    def fraction_used(self) -> float:
        """Of the usable memory."""
        return self.used_bytes / self.usable_bytes


class Area:
    """The layouts of a placement as arrays; the bound of a layout's bytes is replaced when it is needed exactly."""

    def __init__(self, terms: PlacementTerms, peaks: PeakTable) -> None:
        batch = PlacementBatch([terms], peaks.micro)
        rows = np.flatnonzero(batch.there[0, :, 0])
        self.terms, self.peaks, self.batch = terms, peaks, batch
        self.step_seconds, self.used = batch.step_seconds[0], batch.used[0]
        self.exact: LayoutMask = np.zeros(self.used.shape, dtype=bool)
        self.known = np.broadcast_to(terms.known, self.used.shape)
        self.layouts = len(rows) * len(terms.choices)

    def first(self, limits: SearchLimits, known: bool, by_room: bool = False) -> Layout | None:
        """The layout with the fastest run within the limits; of equal ones that which uses least.

        known: of those that are known to fit. by_room: the one that uses least, of equal ones the fastest. None where
        there is none. Of one runtime the fastest step is the fastest run; what is compiled begins later.
        """
        runtimes = np.array([choice.runtime for choice in self.terms.choices])
        found = [self._first_of(runtimes == one, limits, known, by_room) for one in dict.fromkeys(runtimes.tolist())]

        def order(layout: Layout) -> tuple[float, float]:
            seconds, used = layout.seconds, float(layout.used_bytes)
            return (used, seconds) if by_room else (seconds, used)

        return min((one for one in found if one is not None), key=order, default=None)

    def _first_of(self, columns: LayoutMask, limits: SearchLimits, known: bool, by_room: bool) -> Layout | None:
        """That of some choices, which differ in nothing that a run does beside its steps."""
        most = self.terms.usable * (1 - limits.head_room)
        allowed = self.batch.within(limits)[0] & columns
        if known:
            allowed &= self.used <= self.known
        while True:
            at = self._first(allowed & (self.used <= most), by_room)
            if at is None:
                return None
            if not self.exact[at]:
                self._make_exact(at)
                continue
            found = self.layout(at)
            if known and not found.fits:
                allowed[at] = False
                continue
            found = self._whole(found)
            if keeps(found, limits):
                return found
            if not by_room:
                return None  # what a run does beside its steps makes no slower step the faster run
            allowed[at] = False

    def nearest(self) -> Layout:
        """The layout that uses least."""
        found = self.first(SearchLimits(head_room=-np.inf), known=False, by_room=True)
        assert found is not None
        return found

    def layout(self, at: tuple[int, int]) -> Layout:
        """A layout whose bytes are exact, timed by its steps."""
        (row, column), terms = at, self.terms
        config = terms.placement.with_steps(int(self.batch.micro[row]), terms.choices[column])
        step, gpus = float(self.step_seconds[at]), config.hardware.gpus
        seconds = seconds_of_steps(terms.run, step)
        hours = cost.gpu_hours(seconds, gpus)
        run, gpu = replace(terms.run, config=config), terms.run.gpu
        assert gpu is not None
        return Layout(
            config,
            step,
            seconds,
            None if terms.hourly is None else cost.cost_of_hours(hours, terms.hourly),
            energy_kwh(gpu, hours),
            int(self.used[at]),
            terms.usable,
            True if is_known_to_fit(run, gpu, self._peak(at)) else None,
        )

    def _whole(self, layout: Layout) -> Layout:
        """The layout with the time, the cost and the energy of the whole run, as a plan has them."""
        run = replace(self.terms.run, config=layout.config)
        time = time_of(run, throughput_of(run, flops_of(run)))
        spent = cost_of(run, time)
        assert time.seconds.value is not None
        return replace(layout, seconds=time.seconds.value, usd=spent.usd.value, energy_kwh=spent.energy_kwh)

    def _peak(self, at: tuple[int, int]) -> int:
        (row, column), placement = at, self.terms.placement
        micro = int(self.batch.micro[row])
        return self.peaks.peak(self.terms.run, self.terms.choices[column], micro, placement.sequences)

    def _make_exact(self, at: tuple[int, int]) -> None:
        self.used[at] = allocated_bytes(self._peak(at)) + self.terms.outside
        self.exact[at] = True

    def _first(self, open_: LayoutMask, by_room: bool) -> tuple[int, int] | None:
        if not open_.any():
            return None
        keys: list[Any] = [self.step_seconds, self.used]
        if by_room:
            keys.reverse()
        least = np.where(open_, keys[0], np.inf)
        ties = least == least.min()
        at = int(np.where(ties, keys[1], np.inf).argmin())
        row, column = divmod(at, self.used.shape[1])
        return row, column


def keeps(layout: Layout, limits: SearchLimits) -> bool:
    """Whether a layout keeps the limits of time and cost."""
    dear = limits.usd is not None and (layout.usd is None or layout.usd > limits.usd)
    return not dear and (limits.seconds is None or layout.seconds <= limits.seconds)
