"""The peak of a simulated step as a function of micro-batch and blocks: exact, from a few simulations.

Every allocation of a step is a + b x micro-batch + c x blocks + d x micro-batch x blocks in whole bytes, and the order
of allocations and releases is the same for all of them; so is every local maximum of the bytes alive. Simulations at
the corners of a square give a, b, c, d of each local maximum; the peak anywhere is the largest of these.

The scratch of a GPU's kernels is no line. Where a kernel runs, the bytes alive without its scratch are one, and so are
its rows; its scratch on a card is added for each micro-batch (`planner/memory/kernel_scratch.py`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from planner.counts.ranks import Rank, run_of_rank
from planner.counts.run import Resolved
from planner.memory.kernel_scratch import KernelScratch, Multiprocessors, multiprocessors_of, scratch_sizes
from planner.memory.ledger import LocalMaximum
from planner.memory.phases import local_maxima, retained_bytes

Integers = NDArray[np.int64]
Floats = NDArray[np.float64]
Maxima = list[LocalMaximum]  # the last one is what a chunk retains
Sampler = Callable[[Resolved], Maxima]
# phases in which the activations of a pipeline's other chunks are alive
WITH_CHUNKS = ("forward_end", "backward_start", "backward_block", "backward_end")
RETAINED = "retained"


@dataclass(frozen=True, slots=True)
class Origin:
    """Where an envelope begins: micro-batch, blocks, blocks of a chunk; `step`: blocks by which a chunk may grow, 0
    for an envelope of these blocks only. apart: a GPU holds other blocks than those of one chunk."""

    micro: int
    layers: int
    chunk: int
    step: int
    apart: bool


@dataclass(frozen=True, slots=True)
class RunningKernel:
    """The kernel that runs at a local maximum, as at the envelope's origin, and its rows for each more sequence."""

    kernel: KernelScratch
    more: int

    def scratch(self, sequences: Integers, card: Multiprocessors) -> Integers:
        """Bytes of its scratch for each number of sequences beyond the origin's."""
        rows = (self.kernel.rows + self.more * sequences).tolist()
        return np.array([sum(scratch_sizes(replace(self.kernel, rows=n), card)) for n in rows], dtype=np.int64)


RowsByKernel = dict[RunningKernel | None, Integers]


@dataclass(frozen=True, slots=True)
class Envelope:
    """Bytes of each local maximum, [rows, 5]: at the origin; for each sequence, block, step of a chunk; for both.

    during: while activations of other chunks are alive. outside: at other times. Both by the kernel whose scratch comes
    in addition. retained: what a chunk keeps.
    """

    origin: Origin
    during: RowsByKernel
    outside: RowsByKernel
    retained: RowsByKernel

    def at(self, micro: Integers, layers: int, chunk: int, card: Multiprocessors) -> Integers:
        """The highest of `during`, of `outside`, and `retained`, for each micro-batch on a card: [3, micro-batches]."""
        o = self.origin
        steps = (chunk - o.chunk) // o.step if o.step else 0
        corner = np.array([1, 0, layers - o.layers, steps, 0], dtype=np.int64)
        slope = np.array([0, 1, 0, 0, steps], dtype=np.int64)
        found = np.zeros((3, len(micro)), dtype=np.int64)
        more = micro - o.micro
        for i, groups in enumerate((self.during, self.outside, self.retained)):
            for running, rows in groups.items():
                highest = ((rows @ corner)[:, None] + (rows @ slope)[:, None] * more).max(axis=0)
                if running is not None:
                    highest += running.scratch(more, card)
                np.maximum(found[i], highest, out=found[i])
        return found


def whole_step(run: Resolved) -> Maxima:
    """Every local maximum of a step."""
    found, retained = local_maxima(run)
    return [*found, LocalMaximum(RETAINED, retained)]


def chunk_only(run: Resolved) -> Maxima:
    """What a chunk retains alone."""
    return [LocalMaximum(RETAINED, retained_bytes(run))]


def envelope_of(run: Resolved, rank: Rank, origin: Origin, sampler: Sampler = whole_step) -> Envelope | None:
    """The envelope of a kind of GPU; None where the order of events differs between the corners."""

    def sample(micro: int, more_layers: int = 0, more_chunk: int = 0) -> tuple[Maxima, Integers]:
        one = replace(rank, layers=origin.layers + more_layers, chunk_layers=origin.chunk + more_chunk, in_flight=1)
        found = sampler(run_of_rank(run.computed_with(training={"micro_batch": micro}), one))
        return found, np.array([each.size for each in found], dtype=np.int64)

    m, step = origin.micro, origin.step
    corners = [sample(m), sample(m + 1)]
    if step:
        with_chunk = 0 if origin.apart else step
        corners += [sample(m, with_chunk, step), sample(m + 1, with_chunk, step)]
    if step and origin.apart:
        corners.append(sample(m, 1))
    first, base = corners[0]
    if any(_order(other) != _order(first) for other, _ in corners):
        return None
    running = [_running(*pair) for pair in zip(first, corners[1][0], strict=True)]
    found = np.zeros((len(base), 5), dtype=np.int64)
    found[:, 0], found[:, 1] = base, corners[1][1] - base
    if step:
        found[:, 3] = corners[2][1] - base
        found[:, 4] = corners[3][1] - corners[2][1] - found[:, 1]
    if step and origin.apart:
        found[:, 2] = corners[4][1] - base
    rows: tuple[dict[RunningKernel | None, list[int]], ...] = ({}, {}, {})
    for i, (each, kernel) in enumerate(zip(first, running, strict=True)):
        part = 2 if each.phase == RETAINED else 0 if each.phase in WITH_CHUNKS else 1
        rows[part].setdefault(kernel, []).append(i)
    parts = [{kernel: undominated(found[where]) for kernel, where in groups.items()} for groups in rows]
    return Envelope(origin, *parts)


def _order(maxima: Maxima) -> list[tuple[str, KernelScratch | None]]:
    """What comes after what, whatever the sizes."""
    return [(each.phase, None if each.kernel is None else replace(each.kernel, rows=0)) for each in maxima]


def _running(first: LocalMaximum, second: LocalMaximum) -> RunningKernel | None:
    """The kernel of a local maximum, from those of one sequence and of one more."""
    if first.kernel is None or second.kernel is None:
        return None
    return RunningKernel(first.kernel, second.kernel.rows - first.kernel.rows)


def highest_at(run: Resolved, rank: Rank, micro: int, sampler: Sampler = whole_step) -> tuple[int, int, int]:
    """One simulation: the highest bytes while other chunks' activations are alive, at other times, and `retained`."""
    found = sampler(run_of_rank(run.computed_with(training={"micro_batch": micro}), replace(rank, in_flight=1)))
    card = multiprocessors_of(run.gpu)
    highest = {True: 0, False: 0}
    for each in found[:-1]:
        scratch = 0 if each.kernel is None else sum(scratch_sizes(each.kernel, card))
        during = each.phase in WITH_CHUNKS
        highest[during] = max(highest[during], each.size + scratch)
    return highest[True], highest[False], found[-1].size


def undominated(rows: Integers) -> Integers:
    """The rows that no other is above in every column: no other can hold the peak."""
    left = np.unique(rows, axis=0)
    left = left[np.argsort(-left.sum(axis=1), kind="stable")]
    kept: list[Any] = []
    while len(left):  # the first has the largest sum: none is above it
        kept.append(left[0])
        left = left[(left > left[0]).any(axis=1)]
    return np.array(kept, dtype=np.int64).reshape(-1, 5)
