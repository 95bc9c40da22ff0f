"""The best layouts of a run: those that fit and keep the limits, ranked, the best of each placement.

A survey times all layouts by arrays, and bounds their memory from below. What the placements promise is then compared
with exact peaks, best first, until nothing that is left can be among the best: the same answer as if each layout had
been estimated. A layout whose verdict is open is not ranked among those that are known to fit, but beside them.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Literal

from planner.analysis.search.area import Area, Layout
from planner.analysis.search.batches import SearchTables
from planner.analysis.search.misses import Misses
from planner.analysis.search.processes import surveyed
from planner.analysis.search.space import Placement, placements
from planner.analysis.search.survey import Promise, Promises, Question, Score, Survey, score_of, survey_of
from planner.config.run import Assumption, RunConfig
from planner.errors import InputError
from planner.inputs.runtime import KEY as RUNTIME
from planner.inputs.runtime import runtime_is_assumed
from planner.inputs.search import SEARCHED, RankedBy, SearchLimits, SearchSpace
from planner.plan import Plan, estimate

LAYOUTS_SHOWN, OPEN_SHOWN = 10, 3
Ranked = tuple[Score, tuple[int, int], Layout]


@dataclass(frozen=True, slots=True)
class SearchResult:
    """The best layouts, the best of each placement; the plans of the first two; the front of time and cost.

    open: layouts that would be ranked above the first if it were known that they fit. Where no layout is known to fit,
    `best` has those that may. left_out: placements that cannot be ranked, by reason. considered: layouts that were
    timed and bounded. placements: combinations of card, number and [parallel] section. simulated: kinds of GPUs whose
    steps were simulated. by: what the layouts are ranked by.
    """

    by: RankedBy
    best: tuple[Layout, ...]
    open: tuple[Layout, ...]
    plans: tuple[Plan, ...]
    front: tuple[Layout, ...]
    left_out: dict[str, int]
    considered: int
    placements: int
    simulated: int


def search(
    config: RunConfig, space: SearchSpace, by: RankedBy = "time", shown: int = LAYOUTS_SHOWN, processes: int = 1
) -> SearchResult:
    """The best layouts of a run with the same steps. Raises InputError where the space is empty or nothing is found.

    processes: that look at a large space; the result is the same.
    """
    return LayoutSearch(config, space, by, shown, processes).result()


class LayoutSearch:
    """One search: the tables that its placements share, and what was found of each placement that was looked at."""

    def __init__(
        self, config: RunConfig, space: SearchSpace, by: RankedBy, shown: int = LAYOUTS_SHOWN, processes: int = 1
    ) -> None:
        self.config, self.space, self.by = config, space, by
        self.shown, self.processes = shown, processes
        self.tables = SearchTables(config, space)
        self._seen: dict[tuple[tuple[int, int], bool, bool], Layout | None] = {}

    def result(self) -> SearchResult:
        """Those known to fit are ranked; where there are none, those that may."""
        question = Question(self.by, self.space.limits)
        survey = self.survey(question)
        best = self._ranked(survey, question)
        if not best and survey.open.kept:
            question = replace(question, known=False)
            survey = self.survey(question)
            best = self._ranked(survey, question)
        if not best:
            raise self._nothing_found(survey)
        beside = self._beside(survey, question, best[0]) if question.known else []
        layouts = [layout for _, _, layout in best]
        plans, refused = self._plans(layouts, question.known)
        beside = [*refused, *beside][:OPEN_SHOWN]
        return SearchResult(
            by=self.by,
            best=tuple(map(_with_reason, layouts[: self.shown])),
            open=tuple(map(_with_reason, beside)),
            plans=plans,
            front=tuple(self._front(survey, question)),
            left_out=survey.left_out,
            considered=survey.layouts,
            placements=survey.placements,
            simulated=self.tables.peaks.simulated,
        )

    def survey(self, question: Question) -> Survey:
        """The survey of the whole space."""
        return surveyed(self.tables, self.config, self.space, question, self.processes)

    def _area(self, placement: Placement) -> Area | None:
        terms = self.tables.terms(placement, near=True)
        return None if isinstance(terms, str) else Area(terms, self.tables.peaks)

    def _ranked(self, survey: Survey, question: Question) -> list[Ranked]:
        """The lowest scores, the best layout of each placement; some more than are shown: the allocator may refuse."""

        def look(promise: Promise) -> Layout | None:
            return self._look(promise, question.known, self.by == "head-room")

        return self._lowest("known", survey, question, look, self.shown + 2)

    def _beside(self, survey: Survey, question: Question, winner: Ranked) -> list[Layout]:
        """Layouts whose verdict is open, and that would be above the winner."""

        def look(promise: Promise) -> Layout | None:
            found = self._look(promise, known=False)
            return found if found is not None and not found.fits and self._score(found) < winner[0] else None

        return [layout for _, _, layout in self._lowest("open", survey, question, look, OPEN_SHOWN, winner[:2])]

    def _lowest(
        self,
        kind: Literal["known", "open"],
        survey: Survey,
        question: Question,
        look: Callable[[Promise], Layout | None],
        number: int,
        below: tuple[Score, tuple[int, int]] | None = None,
    ) -> list[Ranked]:
        """The lowest scores of what promises come to: they are looked at until none can be lower."""
        found: list[Ranked] = []
        while True:
            promises: Promises = getattr(survey, kind)
            for promise in promises.in_order():
                worst = found[-1][:2] if len(found) == number else below
                if worst is not None and (promise.score, promise.number) >= worst:
                    return found
                layout = look(promise)
                if layout is not None:
                    insort(found, (self._score(layout), promise.number, layout))
                    del found[number:]
            if promises.beyond is None:
                return found
            survey = self.survey(replace(question, after=promises.in_order()[-1]))

    def _look(self, promise: Promise, known: bool, by_room: bool = False) -> Layout | None:
        """The best layout of a placement."""
        key = promise.number, known, by_room
        if key not in self._seen:
            area = self._area(promise.placement)
            assert area is not None
            self._seen[key] = area.first(self.space.limits, known, by_room)
        return self._seen[key]

    def _score(self, layout: Layout) -> Score:
        return score_of(self.by, layout.seconds, layout.usd, layout.energy_kwh, layout.fraction_used)

    def _front(self, survey: Survey, question: Question) -> list[Layout]:
        """The layouts that none beats in both time and cost: of a card and a number of GPUs the fastest may be one."""
        front: list[Layout] = []
        for (card, gpus), promises in sorted(survey.fronts.items(), key=lambda item: item[1].kept[0]):
            fastest = self._fastest_of(card, gpus, promises, question, front)
            front = pareto_front([*front, *fastest])
        return front

    def _fastest_of(
        self, card: str, gpus: int, promises: Promises, question: Question, front: list[Layout]
    ) -> list[Layout]:
        """The fastest layout of a card and a number of GPUs; none where the front has better ones already."""
        best: tuple[Score, tuple[int, int]] | None = None
        found: list[Layout] = []
        while True:
            for promise in promises.in_order():
                beaten = any(one.seconds <= promise.score[0] and _is_cheaper(one, promise) for one in front)
                if beaten or (best is not None and (promise.score, promise.number) >= best):
                    return found
                layout = self._look(promise, question.known)
                if layout is not None:
                    score = layout.seconds, layout.seconds, layout.fraction_used
                    if best is None or (score, promise.number) < best:
                        best, found = (score, promise.number), [layout]
            if promises.beyond is None:
                return found
            space = replace(self.space, cards=(card,), gpus=(gpus,))
            again = Question("time", question.limits, question.known, promises.in_order()[-1])
            promises = survey_of(self.tables, self._numbered(space), again).known

    def _numbered(self, space: SearchSpace) -> Iterator[Placement | str]:
        """The placements of a part of the space, with the numbers that they have in the whole."""
        for placement in placements(self.config, self.space):
            if not isinstance(placement, str):
                hardware = placement.config.hardware
                if (hardware.gpu, hardware.gpus) == (space.cards[0], space.gpus[0]):
                    yield placement

    def _plans(self, layouts: list[Layout], known: bool) -> tuple[tuple[Plan, ...], list[Layout]]:
        """The plans of the first two. What the simulated allocator refuses, or leaves open, is taken out of `layouts`.

        Also the layouts that it left open.
        """
        plans: list[Plan] = []
        left_open: list[Layout] = []
        while len(plans) < min(2, len(layouts)):
            plan = estimate(layouts[len(plans)].config, replay=True)
            refused = plan.memory.fits is False or (known and plan.memory.fits is None)
            if refused and len(layouts) > 1:
                layout = layouts.pop(len(plans))
                left_open += [replace(layout, fits=None, why_open=_why(plan))] if plan.memory.fits is None else []
            else:
                plans.append(plan)
        return tuple(plans), left_open

    def _nothing_found(self, survey: Survey) -> InputError:
        """The error, with the limit that binds. Raises that of the same search without limits where it has one."""
        limits = self.space.limits
        nearest = None if survey.nearest is None else self._area(survey.nearest.placement)
        misses = Misses(limits, survey.left_out, None if nearest is None else nearest.nearest())
        if limits.seconds is None and limits.usd is None:
            return misses.error()
        unlimited = replace(self.space, limits=SearchLimits(head_room=limits.head_room))
        again = LayoutSearch(self.config, unlimited, "time", 1, self.processes)
        again.tables = self.tables
        front = again.result().front
        return misses.beyond_limits(front[0], front[-1])


def _with_reason(layout: Layout) -> Layout:
    """The layout with the reason why its verdict is open, if it is."""
    if layout.fits or layout.why_open:
        return layout
    return replace(layout, why_open=_why(estimate(layout.config)))


def _why(plan: Plan) -> str:
    return plan.memory.fits_unknown.why if plan.memory.fits_unknown else ""


def _is_cheaper(layout: Layout, promise: Promise) -> bool:
    """Whether a layout that is as fast costs no more than a promise; where prices are unknown the fastest is enough."""
    return promise.usd is None or (layout.usd is not None and layout.usd <= promise.usd)


def chosen_config(result: SearchResult) -> RunConfig:
    """The winner's config, what the search chose recorded in its provenance."""
    config = result.best[0].config
    values: dict[str, object] = {
        "micro_batch": config.training.micro_batch,
        "accumulation": config.training.accumulation,
        "activation_checkpointing": config.training.activation_checkpointing,
        "gpus": config.hardware.gpus,
    }
    if runtime_is_assumed(config):
        values[RUNTIME] = config.training.runtime
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
