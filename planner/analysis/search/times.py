"""Seconds of a step for all micro-batches and choices of a placement: the formulas of `step_time` over arrays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from planner.analysis.search.envelope import Integers
from planner.analysis.search.space import Choice
from planner.counts.ranks import ranks_of, run_of_rank
from planner.counts.run import Resolved
from planner.formulas import collectives, throughput
from planner.rules import rules
from planner.step_time.collectives import communication_of, stage_transfer_seconds
from planner.step_time.pipeline import work_seconds
from planner.step_time.rates import Rates, rates_of
from planner.step_time.update import update_seconds

Floats = NDArray[np.float64]


class TimeTable:
    """Step times by layout; what a stage works on a micro-batch is remembered, for all micro-batches and choices."""

    def __init__(self, micro_batches: Sequence[int]) -> None:
        """micro_batches: all that any placement has."""
        self.micro: Floats = np.array(micro_batches, dtype=np.float64)
        self._rates: dict[Any, Rates | str] = {}
        self._work: dict[Any, Floats] = {}
        self._updates: dict[Any, float] = {}

    def step_seconds(self, run: Resolved, choices: Sequence[Choice], micro: Integers, sequences: int) -> Floats | str:
        """Seconds, [micro-batches, choices], or in words why they are unknown. Arguments as those of the peaks."""
        hardware, p = run.config.hardware, run.config.parallel
        if hardware.gpu not in self._rates:
            self._rates[hardware.gpu] = rates_of(run)
        rates = self._rates[hardware.gpu]
        if isinstance(rates, str):
            return rates
        if hardware.gpus > 1 and rates.link is None:
            return f"the data sheet of {hardware.gpu} has no bandwidth of its links"
        steps = (sequences // micro).astype(np.float64)[:, None]
        at = np.searchsorted(self.micro, micro)
        batch = {"micro_batch": micro.astype(np.float64)[:, None], "accumulation": steps}
        stages = [run] if p.is_data_parallel else [run_of_rank(run, rank) for rank in ranks_of(run.config)]
        update = max(self._update(stage, rates) for stage in stages)
        slowest: Floats | None = None
        found: Floats | None = None
        for stage in stages:
            now = stage.computed_with(training=batch)
            work = self._stage_work(stage, rates, choices)[at] + stage_transfer_seconds(now, rates)
            whole = _step(now, rates, work, steps, update)
            if slowest is None or found is None:
                slowest, found = work, whole
            else:
                found, slowest = np.where(work > slowest, whole, found), np.maximum(work, slowest)
        assert found is not None
        return found

    def _update(self, stage: Resolved, rates: Rates) -> float:
        p = stage.config.parallel
        shared = (p.zero, p.fsdp, p.hsdp, stage.config.hardware.gpus) if p.zero or p.fsdp else ()
        key = stage.config.hardware.gpu, p.tp, p.pp, p.ep, stage.parameters, shared
        if key not in self._updates:
            self._updates[key] = update_seconds(stage, rates)
        return self._updates[key]

    def _stage_work(self, stage: Resolved, rates: Rates, choices: Sequence[Choice]) -> Floats:
        """Seconds of a stage's work on each micro-batch of the table, a column for each choice."""
        p, rank = stage.config.parallel, stage.rank
        where = astuple(replace(rank, name="", in_flight=1)) if rank else None
        shape = p.tp, p.sp, p.cp, p.ep, p.shards_weights, p.pp_schedule == "dualpipe"
        key = stage.config.hardware.gpu, stage.config.hardware.gpus_per_node, shape, where, tuple(choices)
        if key not in self._work:
            found = np.zeros((len(self.micro), len(choices)))
            has_head = rank is None or rank.has_head
            groups: dict[tuple[str, str], list[int]] = {}
            for column, choice in enumerate(choices):
                groups.setdefault((choice.loss if has_head else "", choice.mode), []).append(column)
            for columns in groups.values():
                found[:, columns] = self._columns(stage, rates, [choices[column] for column in columns])
            self._work[key] = found
        return self._work[key]

    def _columns(self, stage: Resolved, rates: Rates, alike: Sequence[Choice]) -> Any:
        """Those of choices that differ in how many blocks are recomputed only."""
        every = np.array([[choice.every for choice in alike]])
        keys = alike[0].keys | {"activation_checkpointing_every": every, "micro_batch": self.micro[:, None]}
        return sum(work_seconds(stage.computed_with(training=keys), rates).values())


def _step(stage: Resolved, rates: Rates, work: Floats, steps: Floats, update: float) -> Floats:
    """Seconds of a step whose slowest stage this is. work: of one micro-batch; steps: micro-batches."""
    p, table = stage.config.parallel, rules("time")["layouts"]
    both = p.pp_schedule == "dualpipe"
    whole = throughput.micro_batches_seconds(work, steps / (2 if both else 1)) + update
    if not p.is_data_parallel:
        filled = p.pp / 2 if both else p.pp
        whole = whole + collectives.bubble_seconds(filled, p.interleave, work, table["bubble"][p.pp_schedule])
    shared = communication_of(stage, rates, work)  # type: ignore[arg-type]
    assert not isinstance(shared, str)
    whole = whole + shared.all_reduce + shared.sharding
    found: Floats = whole + throughput.straggler_seconds(whole, shared.straggling)
    return found
