"""Seconds of a step over arrays: the formulas of `step_time`, for all micro-batches and choices of many placements.

What a kind of GPU works on one micro-batch is computed once, for all micro-batches and choices, and shared by the
placements that have it. What tells placements apart beside it are some numbers each.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from planner.analysis.search.envelope import Floats, Integers
from planner.analysis.search.space import Choice, Choices
from planner.analysis.search.tables import Kept, LocalRuns
from planner.counts.ranks import Rank
from planner.counts.run import Resolved
from planner.formulas import collectives, throughput
from planner.rules import rules
from planner.step_time.blocks import recomputed_fraction
from planner.step_time.collectives import (
    Communication,
    communication_of,
    context_parallel_seconds,
    expert_parallel_seconds,
    stage_transfer_seconds,
    tensor_parallel_seconds_of,
)
from planner.step_time.device import block_parts
from planner.step_time.head import head_and_loss_seconds
from planner.step_time.host import launching_seconds
from planner.step_time.rates import Rates, rates_of
from planner.step_time.update import update_seconds


@dataclass(frozen=True, slots=True)
class PlacementTimes:
    """What the seconds of a placement's steps follow from.

    work: of each stage, seconds of one micro-batch, [micro-batches, choices]. transfers: what it waits for its
    neighbours meanwhile, [micro-batches]. shared: what its replicas exchange. update: of the stage that takes longest.
    filled, chunks, waiting: stages and chunks of the pipeline, and the part of its bubble that stays. directions: of
    the pipeline.
    """

    work: tuple[Floats, ...]
    transfers: tuple[Floats, ...]
    shared: tuple[Communication, ...]
    update: float
    filled: float
    chunks: int
    waiting: float
    directions: int


@dataclass(frozen=True, slots=True)
class _Stage:
    """A kind of GPU of a placement, `place` None: each has the whole model. Its own run is made where it is needed."""

    run: Resolved
    place: Rank | None
    runs: LocalRuns | None

    @property
    def local(self) -> Resolved:
        """The run as this GPU sees it."""
        return self.run if self.place is None or self.runs is None else self.runs.of(self.run, self.place)


class TimeTable:
    """Step times by placement; what a stage works on a micro-batch is remembered, for all micro-batches and choices."""

    def __init__(self, micro_batches: Sequence[int], local: LocalRuns) -> None:
        """micro_batches: all that any placement has."""
        self.micro: Floats = np.array(micro_batches, dtype=np.float64)
        self._local = local
        self._rates: dict[tuple[str, str], Rates | str] = {}
        self._work: Kept[Floats] = Kept()
        self._transfers: Kept[Floats] = Kept()
        self._updates: Kept[float] = Kept()
        self._shared: Kept[Communication] = Kept()

    def terms(self, run: Resolved, ranks: Sequence[Rank], choices: Choices) -> PlacementTimes | str:
        """What a placement's seconds follow from, or in words why they are unknown. ranks: its kinds of GPUs."""
        hardware, p = run.config.hardware, run.config.parallel
        rates = self._rates_of(run)
        if isinstance(rates, str):
            return rates
        if hardware.gpus > 1 and rates.link is None:
            return f"the data sheet of {hardware.gpu} has no bandwidth of its links"
        at = [_Stage(run, None, None)] if p.is_data_parallel else [self._stage(run, rank) for rank in ranks]
        both = p.pp_schedule == "dualpipe"
        return PlacementTimes(
            work=tuple(self._stage_work(stage, choices) for stage in at),
            transfers=(self._transfer(run, rates),) * len(at),
            shared=tuple(self._communication(stage, rates) for stage in at),
            update=max(self._update(stage, rates) for stage in at),
            filled=p.pp / 2 if both else p.pp,
            chunks=p.interleave,
            waiting=rules("time")["layouts"]["bubble"][p.pp_schedule],
            directions=2 if both else 1,
        )

    def step_seconds(self, run: Resolved, choices: Choices, micro: Integers, sequences: int) -> Floats | str:
        """Seconds of the steps of one placement, [micro-batches, choices], or in words why they are unknown."""
        found = self.terms(run, self._local.ranks(run), choices)
        if isinstance(found, str):
            return found
        rows = np.searchsorted(self.micro, micro)
        steps = np.ones((1, len(self.micro)))
        steps[0, rows] = sequences // micro
        whole: Floats = seconds_of([found], steps)[0, rows]
        return whole

    def _rates_of(self, run: Resolved) -> Rates | str:
        key = run.config.hardware.gpu, run.config.training.runtime
        if key not in self._rates:
            self._rates[key] = rates_of(run)
        return self._rates[key]

    def _stage(self, run: Resolved, rank: Rank) -> _Stage:
        return _Stage(run, self._local.place(run, rank), self._local)

    def _communication(self, stage: _Stage, rates: Rates) -> Communication:
        p, hardware = stage.run.config.parallel, stage.run.config.hardware
        shared = p.fsdp, p.reshard, p.hsdp, p.zero, p.ddp_bucket_view
        key = hardware.gpu, hardware.gpus, p.tp, p.pp, p.ep, shared, stage.place
        if key not in self._shared:
            found = communication_of(stage.local, rates)
            assert not isinstance(found, str)
            self._shared[key] = found
        return self._shared[key]

    def _transfer(self, run: Resolved, rates: Rates) -> Floats:
        p, hardware = run.config.parallel, run.config.hardware
        key = hardware.gpu, hardware.gpus, p.tp, p.pp, p.cp, p.interleave
        if key not in self._transfers:
            seq = run.config.training.seq // p.cp
            now = run.computed_with(training={"micro_batch": self.micro, "seq": seq})
            self._transfers[key] = np.zeros(len(self.micro)) + stage_transfer_seconds(now, rates)
        return self._transfers[key]

    def _update(self, stage: _Stage, rates: Rates) -> float:
        p, hardware = stage.run.config.parallel, stage.run.config.hardware
        shared = (p.zero, p.fsdp, p.hsdp, hardware.gpus, p.pp) if p.zero or p.fsdp else ()
        key = hardware.gpu, p.tp, p.ep, stage.place, shared
        if key not in self._updates:
            self._updates[key] = update_seconds(stage.local, rates)
        return self._updates[key]

    def _stage_work(self, stage: _Stage, choices: Choices) -> Floats:
        """Seconds of a stage's work on each micro-batch of the table, a column for each choice."""
        p, t, hardware = stage.run.config.parallel, stage.run.config.training, stage.run.config.hardware
        offloads = t.activation_checkpointing == "offloaded"
        shape = p.tp, p.sp, p.cp, p.ep, p.pp_schedule == "dualpipe", offloads and p.shards_weights
        key = hardware.gpu, hardware.gpus_per_node, shape, stage.place, choices
        if key not in self._work:
            found, local = np.zeros((len(self.micro), len(choices))), stage.local
            for columns in _alike([choice.runtime for choice in choices]):
                found[:, columns] = self._work_under(local, [choices[i] for i in columns])
            self._work[key] = found
        return self._work[key]

    def _work_under(self, stage: Resolved, choices: Sequence[Choice]) -> Floats:
        """The work of choices with one runtime. What a placement's rates have beside it no runtime changes."""
        stage = _with(stage, runtime=choices[0].runtime)
        rates, found = self._rates_of(stage), np.zeros((len(self.micro), len(choices)))
        assert not isinstance(rates, str)
        for columns, head in self._heads(stage, rates, choices):
            found[:, columns] += head
        for columns in _alike([choice.mode for choice in choices]):
            found[:, columns] = self._work_of(stage, rates, [choices[i] for i in columns], found[:, columns])
        return found

    def _heads(self, stage: Resolved, rates: Rates, choices: Sequence[Choice]) -> list[tuple[list[int], Floats]]:
        """Columns, and the seconds of their head and loss: [micro-batches, 1]."""
        if stage.rank is not None and not stage.rank.has_head:
            return []
        micro = self.micro[:, None]
        return [
            (columns, head_and_loss_seconds(_with(stage, micro_batch=micro, loss=choices[columns[0]].loss), rates))  # type: ignore[misc]
            for columns in _alike([choice.loss for choice in choices])
        ]

    def _work_of(self, stage: Resolved, rates: Rates, alike: Sequence[Choice], head: Floats) -> Any:
        """Seconds of choices of one checkpointing mode. head: those of the head and loss, known already."""
        every = np.array([[choice.every for choice in alike]])
        mode = alike[0].mode
        now = _with(
            stage, micro_batch=self.micro[:, None], activation_checkpointing=mode, activation_checkpointing_every=every
        )
        parts = block_parts(now, rates)
        again = now.shape.layers * (1 + recomputed_fraction(now) / 2)
        return (
            throughput.with_host_seconds(sum(parts.values()) + head, launching_seconds(now, rates))
            + tensor_parallel_seconds_of(now, rates, again)
            + context_parallel_seconds(now, rates, parts["attention"])
            + expert_parallel_seconds(now, rates)
        )


def seconds_of(terms: Sequence[PlacementTimes], steps: Floats) -> Floats:
    """Seconds of the steps of placements with as many stages each: [placements, micro-batches, choices].

    steps: micro-batches of a step, [placements, the first micro-batches of the table].
    """
    rows = steps.shape[1]

    def work_of(stage: int) -> Any:
        work = np.stack([one.work[stage][:rows] for one in terms])
        work += np.stack([one.transfers[stage][:rows] for one in terms])[:, :, None]
        return work

    work, slowest = work_of(0), None
    for stage in range(1, len(terms[0].work)):
        other = work_of(stage)
        later = other > work
        slowest = np.where(later, stage, 0 if slowest is None else slowest)
        work = np.where(later, other, work)

    def column(values: Sequence[float]) -> Floats:
        return np.array(values, dtype=np.float64)[:, None, None]

    def shared(name: str) -> Any:
        values = np.array([[getattr(one, name) for one in each.shared] for each in terms])
        if slowest is None or (values == values[:, :1]).all():
            return values[:, :1, None]
        return values[np.arange(len(terms))[:, None, None], slowest]

    times, table = steps[:, :, None], rules("time")["sharding"]
    filled, chunks = column([t.filled for t in terms]), column([t.chunks for t in terms])
    whole = throughput.micro_batches_seconds(work, times / column([t.directions for t in terms]))
    whole += column([t.update for t in terms])
    whole += collectives.bubble_seconds(filled, chunks, work, column([t.waiting for t in terms]))
    reduced, gathered = shared("reduced"), shared("gathered")
    if reduced.any():
        whole += throughput.exposed_seconds(reduced, work)
    if gathered.any():
        left = throughput.unhidden_seconds(gathered, work, table["hidden"], table["exposed"])
        whole += throughput.micro_batches_seconds(left, times)
    whole += shared("added")
    whole += throughput.straggler_seconds(whole, shared("straggling"))
    found: Floats = whole
    return found


def _with(stage: Resolved, **training: Any) -> Resolved:
    return stage.computed_with(training=training)


def _alike(names: Sequence[str]) -> list[list[int]]:
    """The columns of each name."""
    found: dict[str, list[int]] = {}
    for column, name in enumerate(names):
        found.setdefault(name, []).append(column)
    return list(found.values())
