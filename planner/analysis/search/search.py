"""The best layouts of a run: those that fit and keep the limits, ranked, the best of each placement.

A placement's layouts are timed at once, and a bound below their peaks rules out most of what does not fit. What is left
is compared with the exact peak, best first, until one fits: the same answer as if each had been estimated.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from planner.analysis.search.area import Area, Layout
from planner.analysis.search.misses import Misses
from planner.analysis.search.peaks import PeakTable
from planner.analysis.search.space import Choice, Placement, choices, divisors, placements
from planner.analysis.search.times import TimeTable
from planner.config.run import Assumption, RunConfig
from planner.counts.run import Resolved, gpu_of, resolve
from planner.errors import InputError
from planner.inputs.search import SEARCHED, RankedBy, SearchLimits, SearchSpace
from planner.memory.coverage import not_covered
from planner.plan import Plan, estimate

LAYOUTS_SHOWN = 10


@dataclass(frozen=True, slots=True)
class SearchResult:
    """The best layouts, the best of each placement; the plans of the first two; the front of time and cost.

    considered: layouts that were timed and bounded. placements: combinations of card, number and [parallel] section.
    simulated: envelopes for which steps were simulated. by: what the layouts are ranked by.
    """

    by: RankedBy
    best: tuple[Layout, ...]
    plans: tuple[Plan, ...]
    front: tuple[Layout, ...]
    considered: int
    placements: int
    simulated: int


def search(config: RunConfig, space: SearchSpace, by: RankedBy = "time", shown: int = LAYOUTS_SHOWN) -> SearchResult:
    """The best layouts of a run with the same steps. Raises InputError where the space is empty or nothing is found."""
    return LayoutSearch(config, space, by, shown).result()


class LayoutSearch:
    """One search: the tables that its placements share, and the best found so far."""

    def __init__(self, config: RunConfig, space: SearchSpace, by: RankedBy, shown: int) -> None:
        self.config, self.space, self.by = config, space, by
        self.kept = shown + 2  # some more: the first are compared with the simulated allocator
        self.base = resolve(config)
        sizes = divisors(self.base.sequences_per_step)
        self.peaks, self.times = PeakTable(sizes), TimeTable(sizes)
        self.choices = choices(config, space)
        self.best: list[tuple[float, float, float, int, Layout]] = []
        self.front: list[Layout] = []
        self.misses = Misses(space.limits)
        self.considered = self.placements = 0
        self._known: dict[object, tuple[Choice, ...]] = {}

    def result(self) -> SearchResult:
        """The placements are looked at in the order of what they promise, until none can be among the best."""
        promising = []
        for number, placement in enumerate(placements(self.config, self.space)):
            area = self._area(placement)
            if area is None:
                continue
            self.placements += 1
            self.considered += area.used.size
            self.misses.see(area)
            rough = self._rough(area)
            if rough:  # no arrays are kept: they are made anew for the few that are looked at
                promising.append((self._score(rough[0]), number, placement, rough))
        for _, number, placement, rough in sorted(promising, key=lambda entry: entry[:2]):
            self._look_at(placement, number, rough)
        if not self.best:
            raise self._nothing_found()
        best = [entry[-1] for entry in self.best][: self.kept - 2]
        plans = self._plans(best)
        return SearchResult(
            self.by,
            tuple(best),
            plans,
            tuple(self.front),
            self.considered,
            self.placements,
            len(self.peaks.envelopes),
        )

    def _nothing_found(self) -> InputError:
        """The error, with the limit that binds. Raises that of the same search without limits where it has one."""
        limits = self.space.limits
        if limits.seconds is None and limits.usd is None:
            return self.misses.error()
        unlimited = replace(self.space, limits=SearchLimits(head_room=limits.head_room))
        again = LayoutSearch(self.config, unlimited, "time", 1)
        again.peaks, again.times = self.peaks, self.times  # simulated and timed already
        front = again.result().front
        return self.misses.beyond_limits(front[0], front[-1])

    def every_area(self) -> Iterator[Area]:
        """Every placement that can be ranked."""
        found = (self._area(placement) for placement in placements(self.config, self.space))
        return (area for area in found if area is not None)

    def _area(self, placement: Placement) -> Area | None:
        """The layouts of a placement; None, and the reason among the misses, where they cannot be ranked."""
        run = replace(self.base, config=placement.config, gpu=gpu_of(placement.config))
        gpu, found = run.gpu, self._choices(run)
        assert gpu is not None
        if not found:
            uncounted = not_covered(run.computed_with(training=self.choices[0].keys))
            self.misses.left_out.add(f"the memory of {uncounted} is not known")
            return None
        if gpu.usable_bytes is None:
            self.misses.left_out.add(f"the usable memory of {gpu.id} is not known")
            return None
        micro = np.array(placement.micro_batches, dtype=np.int64)
        seconds = self.times.step_seconds(run, found, micro, placement.sequences)
        if isinstance(seconds, str):
            self.misses.left_out.add(seconds)
            return None
        return Area(placement, run, found, seconds, self.peaks)

    def _rough(self, area: Area) -> list[Layout]:
        """What a placement promises at best, by what is ranked, then by time; nothing where it has nothing."""
        allowed, most = area.within(self.space.limits), self._most(area)
        ways = (True, False) if self.by == "head-room" else (False,)
        return [one for by_room in ways if (one := area.first_rough(allowed, most, by_room)) is not None]

    def _most(self, area: Area) -> float:
        """Bytes that a layout may use."""
        return area.usable * (1 - self.space.limits.head_room)

    def _choices(self, run: Resolved) -> tuple[Choice, ...]:
        """Those whose memory is known under the placement's layout."""
        p = run.config.parallel
        key = p.shards_weights, p.sp, p.pp > 1, p.cp > 1, p.tp, run.config.hardware.gpu
        if key not in self._known:
            known = (c for c in self.choices if not_covered(run.computed_with(training=c.keys)) is None)
            self._known[key] = tuple(known)
        return self._known[key]

    def _look_at(self, placement: Placement, number: int, promised: list[Layout]) -> None:
        """Adds the placement's best layouts to the best and to the front where they can be among them."""
        area = None
        for way, rough in enumerate(promised):
            by_room = self.by == "head-room" and way == 0
            if not self._may_enter(rough, by_room):
                continue
            area = area or self._area(placement)
            assert area is not None
            found = area.first(self.space.limits, self._most(area), by_room)
            if found is None:
                continue
            if by_room or self.by != "head-room":
                insort(self.best, (*self._score(found), number, found))
                del self.best[self.kept :]
            if not by_room:
                self.front = pareto_front([*self.front, found])

    def _score(self, layout: Layout) -> tuple[float, float, float]:
        first = {
            "time": layout.seconds,
            "cost": layout.usd,
            "energy": layout.energy_kwh,
            "head-room": layout.fraction_used,
        }[self.by]
        return float("inf") if first is None else first, layout.seconds, layout.fraction_used

    def _may_enter(self, rough: Layout, by_room: bool) -> bool:
        """Whether a placement's best layout may be shown; `rough` is at least as good as it."""
        ranked = by_room or self.by != "head-room"
        if ranked and (len(self.best) < self.kept or self._score(rough) < self.best[-1][:3]):
            return True
        return not by_room and rough in pareto_front([*self.front, rough])

    def _plans(self, best: list[Layout]) -> tuple[Plan, ...]:
        """The plans of the first two; what the simulated allocator refuses is taken out of `best`."""
        plans: list[Plan] = []
        while len(plans) < min(2, len(best)):
            plan = estimate(best[len(plans)].config, replay=True)
            if plan.memory.fits is False and len(best) > 1:
                del best[len(plans)]
            else:
                plans.append(plan)
        return tuple(plans)


def chosen_config(result: SearchResult) -> RunConfig:
    """The winner's config, what the search chose recorded in its provenance."""
    config = result.best[0].config
    values = {
        "micro_batch": config.training.micro_batch,
        "accumulation": config.training.accumulation,
        "activation_checkpointing": config.training.activation_checkpointing,
        "gpus": config.hardware.gpus,
    }
    why = f"chosen by gptplan search, best by {result.by} of {result.considered:,} layouts"
    kept = [each for each in config.provenance.assumptions if each.key not in (*values, *SEARCHED)]
    chosen = [Assumption(key=key, value=str(value), source=why) for key, value in values.items()]
    provenance = config.provenance.model_copy(update={"assumptions": (*kept, *chosen)})
    return config.model_copy(update={"provenance": provenance})


def pareto_front(layouts: list[Layout]) -> list[Layout]:
    """The layouts that none beats in both time and cost, the fastest first; without prices the fastest alone."""
    best: list[Layout] = []
    for layout in sorted(layouts, key=lambda one: (one.seconds, one.usd or 0.0, one.fraction_used)):
        if not best or (layout.usd is not None and best[-1].usd is not None and layout.usd < best[-1].usd):
            best.append(layout)
    return best


def lost_seconds(first: Plan, second: Plan) -> tuple[tuple[str, float], ...]:
    """Where the second plan's run loses time, in seconds of a step by part, largest first; below 0 it gains."""
    names = dict.fromkeys((*first.throughput.parts, *second.throughput.parts))
    lost = [(name, second.throughput.parts.get(name, 0.0) - first.throughput.parts.get(name, 0.0)) for name in names]
    return tuple(sorted((one for one in lost if one[1]), key=lambda one: -abs(one[1])))
