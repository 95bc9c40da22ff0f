"""Many placements as arrays over placements, micro-batches and choices: seconds of steps, and bounds of bytes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from planner.analysis.search.bounds import BoundTable, StageBytes, bytes_below
from planner.analysis.search.envelope import Floats
from planner.analysis.search.peaks import PLAIN, PeakTable
from planner.analysis.search.space import MOST_TOKENS, SHORTEST_PIECE, Choices, Placement, choices, divisors
from planner.analysis.search.tables import Kept, LocalRuns
from planner.analysis.search.times import PlacementTimes, TimeTable, seconds_of
from planner.config.run import RunConfig
from planner.counts.run import Resolved, gpu_of, resolve
from planner.counts.shards import sharing_gpus
from planner.formulas import cost, throughput
from planner.inputs.runtime import why_not_compiled
from planner.inputs.search import SearchLimits, SearchSpace
from planner.memory.coverage import not_covered
from planner.memory.device import context_bytes, workspaces_bytes
from planner.memory.replicas import nccl_bytes
from planner.memory.verdicts import highest_over_predicted, most_known_to_fit
from planner.plan import hourly_price
from planner.presets import Gpu
from planner.rules import rules

LayoutMask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class PlacementTerms:
    """What tells a placement from others. outside: bytes of the device beside the allocator's. usable: bytes.

    known: bytes up to which a layout is known to fit, by choice. hourly: dollars of a GPU and hour; None: unknown.
    """

    placement: Placement
    run: Resolved
    choices: Choices
    times: PlacementTimes
    stages: tuple[StageBytes, ...]
    outside: int
    usable: int
    known: Floats
    hourly: float | None


class SearchTables:
    """All that the placements of a search share."""

    def __init__(self, config: RunConfig, space: SearchSpace) -> None:
        self.base = resolve(config)
        seq = config.training.seq
        rings = config.parallel.cp if "cp" in space.kept else max(1, seq // SHORTEST_PIECE)
        sizes = [m for m in divisors(self.base.sequences_per_step) if m * seq <= max(MOST_TOKENS, seq) * rings]
        self.local = LocalRuns()
        self.peaks = PeakTable(sizes, self.local)
        self.times = TimeTable(sizes, self.local)
        self.bounds = BoundTable(self.peaks, self.local)
        self.choices = choices(config, space)
        # whose memory is known if that of any is: of the runtimes the last
        self._plainest = min(reversed(self.choices), key=lambda c: (c.loss != PLAIN, c.mode != "none"))
        self.chooses_runtime = len({choice.runtime for choice in self.choices}) > 1
        self._known: dict[Any, Choices] = {}
        self._of_limits: Kept[tuple[int, Floats]] = Kept()

    def terms(self, placement: Placement, near: bool = False) -> PlacementTerms | str:
        """What tells a placement from others; in words why its layouts cannot be ranked. near: with nearer bounds."""
        run = replace(self.base, config=placement.config, gpu=gpu_of(placement.config))
        gpu, found = run.gpu, self._choices(run)
        assert gpu is not None
        if not found:
            return f"the memory of {not_covered(run.computed_with(training=self._plainest.keys))} is not known"
        if len({choice.runtime for choice in found}) == 1:
            run = run.computed_with(training={"runtime": found[0].runtime})
        if gpu.usable_bytes is None:
            return f"the usable memory of {gpu.id} is not known"
        ranks = self.local.ranks(run)
        outside, known = self._limits(run, gpu, found)
        times = self.times.terms(run, ranks, found)
        if isinstance(times, str):
            return times
        return PlacementTerms(
            placement=placement,
            run=run,
            choices=found,
            times=times,
            stages=self.bounds.terms(run, ranks, found, near),
            outside=outside,
            usable=gpu.usable_bytes,
            known=known,
            hourly=hourly_price(run).value,
        )

    def _choices(self, run: Resolved) -> Choices:
        """Those whose memory is known under the placement's layout."""
        p = run.config.parallel
        shared = p.shards_weights, p.zero > 0, p.ep > 1
        key = shared, p.sp, p.pp > 1, p.cp > 1, p.tp, run.config.hardware.gpu
        if key not in self._known:
            known = (c for c in self.choices if self.is_known(run.computed_with(training=c.keys)))
            self._known[key] = Choices(known)
        return self._known[key]

    def is_known(self, run: Resolved) -> bool:
        """Whether the memory of a choice is known; where the search chooses the runtime, compiled as by default."""
        if run.config.training.runtime == "compiled" and self.chooses_runtime and why_not_compiled(run):
            return False
        return not_covered(run) is None

    def _limits(self, run: Resolved, gpu: Gpu, found: Choices) -> tuple[int, Floats]:
        """Bytes beside the allocator's, and up to which each choice's verdict is at best known to be that it fits."""
        p = run.config.parallel
        groups = tuple(size > 1 for size in (sharing_gpus(run), p.tp, p.pp, p.cp, p.ep, p.hsdp or 1))
        key = gpu.id, run.config.hardware.gpus > 1, groups, p.zero > 0, p.shards_weights, p.pp_schedule, found
        if key not in self._of_limits:
            many = {"accumulation": 4 * p.pp}
            widest = [highest_over_predicted(run.computed_with(training=choice.keys | many)) for choice in found]
            known = np.array([most_known_to_fit(run, gpu, most) for most in widest])
            self._of_limits[key] = outside_bytes(run, gpu), known
        return self._of_limits[key]


class PlacementBatch:
    """Layouts of placements with the same choices and as many kinds of GPUs. `used` is a bound of the device's bytes.

    seconds, used: [placements, micro-batches of the table, choices]; there: which of them the space has.
    """

    def __init__(self, terms: Sequence[PlacementTerms], micro: NDArray[np.int64]) -> None:
        self.terms, self.micro = terms, micro
        steps = np.ones((len(terms), len(micro)))
        self.there = np.zeros((len(terms), len(micro), 1), dtype=bool)
        for row, one in enumerate(terms):
            columns = np.searchsorted(micro, one.placement.micro_batches)
            self.there[row, columns, 0] = True
            steps[row, columns] = one.placement.sequences / micro[columns]
        self.step_seconds = seconds_of([one.times for one in terms], steps)
        parallels = [one.placement.config.parallel for one in terms]
        pipelines = [(p.pp > 1, p.interleave) for p in parallels]
        requested = bytes_below([one.stages for one in terms], steps, micro.astype(np.float64), pipelines)
        self.used: Floats = allocated_bytes(requested) + self._of("outside")
        self.layouts = sum(len(one.placement.micro_batches) * len(one.choices) for one in terms)

    def within(self, limits: SearchLimits) -> LayoutMask:
        """The layouts whose steps keep the limits of time and cost."""
        found = np.broadcast_to(self.there, self.step_seconds.shape)
        if limits.seconds is None and limits.usd is None:
            return found
        run = self.terms[0].run
        seconds = seconds_of_steps(run, self.step_seconds)
        if limits.seconds is not None:
            found = found & (seconds <= limits.seconds)
        if limits.usd is not None:
            gpus = np.array([one.placement.config.hardware.gpus for one in self.terms])[:, None, None]
            hourly = np.array([np.inf if one.hourly is None else one.hourly for one in self.terms])[:, None, None]
            found = found & (cost.cost_of_hours(cost.gpu_hours(seconds, gpus), hourly) <= limits.usd)
        return found

    def most(self, limits: SearchLimits) -> Floats:
        """Bytes that each may use with the head-room: [placements, 1, 1]."""
        most: Floats = self._of("usable") * (1 - limits.head_room)
        return most

    def known(self) -> Floats:
        """Bytes up to which each is at best known to fit: [placements, 1, choices]."""
        return np.stack([one.known for one in self.terms])[:, None, :]

    def least_fraction(self) -> Floats:
        """Of the usable memory that each placement uses at least."""
        least = np.where(self.there, self.used, np.inf).reshape(len(self.terms), -1).min(axis=1)
        found: Floats = least / np.array([one.usable for one in self.terms])
        return found

    def first(self, allowed: LayoutMask, by_room: bool) -> tuple[Floats, Floats]:
        """Of each placement the fastest allowed layout, of equal ones that which uses least: its seconds and bytes.

        by_room: the one that uses least, of equal ones the fastest. Infinite where none is allowed.
        """
        keys = [self.step_seconds, self.used]
        first, second = reversed(keys) if by_room else keys
        least = np.where(allowed, first, np.inf).reshape(len(self.terms), -1)
        best = least.min(axis=1)
        ties = np.where(least == best[:, None], second.reshape(len(self.terms), -1), np.inf).min(axis=1)
        return (ties, best) if by_room else (best, ties)

    def _of(self, name: str) -> Floats:
        return np.array([getattr(one, name) for one in self.terms], dtype=np.float64)[:, None, None]


def seconds_of_steps(run: Resolved, step: Any) -> Any:
    """Seconds of all steps."""
    return throughput.run_seconds(run.trained_tokens, throughput.tokens_per_second(run.tokens_per_step, step))


def outside_bytes(run: Resolved, gpu: Gpu) -> int:
    """Bytes of the device that no rule scales: workspaces, CUDA context and NCCL's usual buffers."""
    return workspaces_bytes(gpu) + context_bytes(gpu) + (nccl_bytes(run).value or 0)


def allocated_bytes(requested: Any) -> Any:
    """Allocated bytes of tensors, by the rule."""
    return np.rint(requested * rules("roofline")["memory"]["rounding"])
