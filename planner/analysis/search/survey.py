"""A look at the whole space: what each placement promises at best, by arrays. Few promises are kept, the best.

What a survey keeps does not grow with the space. Surveys of parts of a space add up to that of the whole.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np

from planner.analysis.search.batches import PlacementBatch, PlacementTerms, SearchTables, seconds_of_steps
from planner.analysis.search.envelope import Floats
from planner.analysis.search.space import Placement
from planner.formulas import cost
from planner.inputs.search import RankedBy, SearchLimits
from planner.plan import energy_kwh

Score = tuple[float, float, float]  # what is ranked, seconds of the run, fraction of the usable memory
MOST_PROMISES, MOST_OF_A_FRONT = 256, 16
LAYOUTS_AT_ONCE, PLACEMENTS_AT_ONCE = 2**15, 2**8  # of a batch: its arrays stay in a processor's cache


@dataclass(frozen=True, slots=True, order=True)
class Promise:
    """What a placement has at best; no layout of it has a lower score. usd: of its run; None: unknown."""

    score: Score
    number: tuple[int, int]
    placement: Placement = field(compare=False)
    usd: float | None = field(compare=False, default=None)


@dataclass(slots=True)
class Promises:
    """The lowest scores. beyond: the lowest that did not find room; None where all did."""

    most: int
    kept: list[Promise] = field(default_factory=list)
    beyond: Promise | None = None

    def add(self, promise: Promise) -> None:
        """Keep a promise if it is among the lowest."""
        if len(self.kept) >= self.most:
            if promise < self.kept[-1]:
                insort(self.kept, promise)
                promise = self.kept.pop()
            self.beyond = promise if self.beyond is None else min(self.beyond, promise)
        else:
            insort(self.kept, promise)

    def merge(self, other: Promises) -> None:
        """Add those of another part of the space."""
        for promise in other.kept:
            self.add(promise)
        if other.beyond is not None:
            self.beyond = other.beyond if self.beyond is None else min(self.beyond, other.beyond)

    def in_order(self) -> list[Promise]:
        """The lowest, none of which is missing."""
        return self.kept if self.beyond is None else [promise for promise in self.kept if promise < self.beyond]


@dataclass(slots=True)
class Survey:
    """What placements promise: by layouts that may be known to fit, by any that may fit; and of each card and number of
    GPUs the fastest. nearest: the placement that may use least memory. left_out: placements by the reason why."""

    known: Promises = field(default_factory=lambda: Promises(MOST_PROMISES))
    open: Promises = field(default_factory=lambda: Promises(MOST_PROMISES))
    fronts: dict[tuple[str, int], Promises] = field(default_factory=dict)
    nearest: Promise | None = None
    left_out: dict[str, int] = field(default_factory=dict)
    layouts: int = 0
    placements: int = 0

    def leave_out(self, why: str, times: int = 1) -> None:
        """Count placements that cannot be ranked."""
        self.left_out[why] = self.left_out.get(why, 0) + times

    def front(self, card: str, gpus: int) -> Promises:
        """The promises of a card and number of GPUs, by time."""
        return self.fronts.setdefault((card, gpus), Promises(MOST_OF_A_FRONT))

    def merge(self, other: Survey) -> None:
        """Add another part of the space."""
        self.known.merge(other.known)
        self.open.merge(other.open)
        for key, promises in other.fronts.items():
            self.front(*key).merge(promises)
        if other.nearest is not None:
            self.nearest = other.nearest if self.nearest is None else min(self.nearest, other.nearest)
        for why, times in other.left_out.items():
            self.leave_out(why, times)
        self.layouts += other.layouts
        self.placements += other.placements


@dataclass(frozen=True, slots=True)
class Question:
    """What a survey asks: what is ranked, within which limits. after: only higher promises are kept; None: all.

    known: layouts that are known to fit are told from those that may; else all that may are ranked alike.
    """

    by: RankedBy
    limits: SearchLimits
    known: bool = True
    after: Promise | None = None


def survey_of(tables: SearchTables, placed: Iterable[Placement | str], question: Question) -> Survey:
    """The survey of these placements."""
    found = Survey()
    for batch in _batches(tables, placed, found):
        found.layouts += batch.layouts
        found.placements += len(batch.terms)
        for one, least in zip(batch.terms, batch.least_fraction().tolist(), strict=True):
            score = (least, 0.0, 0.0)
            if found.nearest is None or (score, one.placement.number) < (found.nearest.score, found.nearest.number):
                found.nearest = Promise(score, one.placement.number, one.placement)
        _note(batch, found, question)
    return found


def _batches(tables: SearchTables, placed: Iterable[Placement | str], found: Survey) -> Iterator[PlacementBatch]:
    """Batches of placements alike in choices, kinds of GPUs and micro-batches; the rest is counted in `found`."""
    waiting: dict[object, list[PlacementTerms]] = {}
    for placement in placed:
        terms = placement if isinstance(placement, str) else tables.terms(placement)
        if isinstance(terms, str):
            found.leave_out(terms)
            continue
        rows = int(np.searchsorted(tables.peaks.micro, terms.placement.micro_batches[-1])) + 1
        key = terms.choices, len(terms.stages), rows
        alike = waiting.setdefault(key, [])
        alike.append(terms)
        if len(alike) >= PLACEMENTS_AT_ONCE or len(alike) * rows * len(terms.choices) >= LAYOUTS_AT_ONCE:
            yield PlacementBatch(waiting.pop(key), tables.peaks.micro[:rows])
    for (_, _, rows), alike in waiting.items():  # type: ignore[misc]
        yield PlacementBatch(alike, tables.peaks.micro[:rows])


def _note(batch: PlacementBatch, found: Survey, question: Question) -> None:
    """Keep what the placements of a batch promise."""
    limits, ranked_by_room = question.limits, question.by == "head-room"
    any_that_fits = batch.within(limits) & (batch.used <= batch.most(limits))
    known = any_that_fits & (batch.used <= batch.known()) if question.known else any_that_fits
    fastest = batch.first(known, False)
    for promise in _promises(batch, fastest, "time"):
        hardware = promise.placement.config.hardware
        if question.after is None:
            found.front(hardware.gpu, hardware.gpus).add(promise)
    best = batch.first(known, True) if ranked_by_room else fastest
    for promise in _promises(batch, best, question.by):
        if question.after is None or promise > question.after:
            found.known.add(promise)
    if question.known and not ranked_by_room:
        for promise in _promises(batch, batch.first(any_that_fits, False), question.by):
            if question.after is None or promise > question.after:
                found.open.add(promise)


def _promises(batch: PlacementBatch, best: tuple[Floats, Floats], by: RankedBy) -> Iterator[Promise]:
    steps, used = best
    for one, step, most in zip(batch.terms, steps.tolist(), used.tolist(), strict=True):
        if step == np.inf:
            continue
        seconds, hardware = seconds_of_steps(one.run, step), one.placement.config.hardware
        hours = cost.gpu_hours(seconds, hardware.gpus)
        usd = None if one.hourly is None else cost.cost_of_hours(hours, one.hourly)
        energy = energy_kwh(one.run.gpu, hours) if by == "energy" else None
        score = score_of(by, seconds, usd, energy, most / one.usable)
        yield Promise(score, one.placement.number, one.placement, usd)


def score_of(by: RankedBy, seconds: float, usd: float | None, energy: float | None, fraction: float) -> Score:
    """What layouts are ordered by: the lowest is the best; what is unknown is last."""
    first = {"time": seconds, "cost": usd, "energy": energy, "head-room": fraction}[by]
    return float("inf") if first is None else first, seconds, fraction
