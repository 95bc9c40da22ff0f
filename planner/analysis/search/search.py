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
from planner.analysis.search.space import Choice, choices, divisors, placements
from planner.analysis.search.times import TimeTable
from planner.config.run import Assumption, RunConfig
from planner.counts.run import Resolved, gpu_of, resolve
from planner.inputs.search import SEARCHED, RankedBy, SearchSpace
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
    return _Search(config, space, by, shown).result()


class _Search:
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
        """Every placement is looked at, and none is kept that is not among the best."""
        for area in self._areas():
            self.placements += 1
            self.considered += area.used.size
            self._look_at(area)
        if not self.best:
            raise self.misses.error()
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

    def _areas(self) -> Iterator[Area]:
        for placement in placements(self.config, self.space):
            run = replace(self.base, config=placement.config, gpu=gpu_of(placement.config))
            gpu, found = run.gpu, self._choices(run)
            assert gpu is not None
            if not found:
                uncounted = not_covered(run.computed_with(training=self.choices[0].keys))
                self.misses.left_out.add(f"the memory of {uncounted} is not known")
                continue
            if gpu.usable_bytes is None:
                self.misses.left_out.add(f"the usable memory of {gpu.id} is not known")
                continue
            micro = np.array(placement.micro_batches, dtype=np.int64)
            seconds = self.times.step_seconds(run, found, micro, placement.sequences)
            if isinstance(seconds, str):
                self.misses.left_out.add(seconds)
                continue
            yield Area(placement, run, found, seconds, self.peaks)

    def _choices(self, run: Resolved) -> tuple[Choice, ...]:
        """Those whose memory is known under the placement's layout."""
        p = run.config.parallel
        key = p.shards_weights, p.sp, p.pp > 1, p.cp > 1, p.tp, run.config.hardware.gpu
        if key not in self._known:
            known = (c for c in self.choices if not_covered(run.computed_with(training=c.keys)) is None)
            self._known[key] = tuple(known)
        return self._known[key]

    def _look_at(self, area: Area) -> None:
        """Adds the placement's best layouts to the best and to the front where they can be among them."""
        most = area.usable * (1 - self.space.limits.head_room)
        allowed = area.within(self.space.limits)
        if not self.best:
            self.misses.see(area, most)
        for by_room in (False, True) if self.by == "head-room" else (False,):
            rough = area.first_rough(allowed, most, by_room)
            if rough is None or not self._may_enter(rough, by_room):
                continue
            found = area.first(self.space.limits, most, by_room)
            if found is None:
                continue
            if by_room or self.by != "head-room":
                insort(self.best, (*self._score(found), area.micro.size + self.considered, found))
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
