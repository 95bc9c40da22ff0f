"""The peak of a simulated step as a function of micro-batch and blocks: exact, from a few simulations.

Every allocation of a step is a + b x micro-batch + c x blocks + d x micro-batch x blocks in whole bytes, and the order
of allocations and releases is the same for all of them; so is every local maximum of the bytes alive. Simulations at
the corners of a square give a, b, c, d of each local maximum; the peak anywhere is the largest of these.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from planner.counts.ranks import Rank, run_of_rank
from planner.counts.run import Resolved
from planner.memory.phases import local_maxima, retained_bytes

Integers = NDArray[np.int64]
Floats = NDArray[np.float64]
Maxima = tuple[list[str], list[int]]  # phases of local maxima and their bytes, the last one what a chunk retains
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
class Envelope:
    """Bytes of each local maximum, [rows, 5]: at the origin; for each sequence, block, step of a chunk; for both.

    during: while activations of other chunks are alive. outside: at other times. retained: [1, 5], what a chunk keeps.
    """

    origin: Origin
    during: Integers
    outside: Integers
    retained: Integers

    def at(self, micro: Integers, layers: int, chunk: int) -> Integers:
        """The highest of `during`, of `outside`, and `retained`, for each micro-batch: [3, micro-batches]."""
        o = self.origin
        steps = (chunk - o.chunk) // o.step if o.step else 0
        corner = np.array([1, 0, layers - o.layers, steps, 0], dtype=np.int64)
        slope = np.array([0, 1, 0, 0, steps], dtype=np.int64)
        found = np.zeros((3, len(micro)), dtype=np.int64)
        for i, rows in enumerate((self.during, self.outside, self.retained)):
            if len(rows):
                found[i] = ((rows @ corner)[:, None] + (rows @ slope)[:, None] * (micro - o.micro)).max(axis=0)
        return found


def whole_step(run: Resolved) -> Maxima:
    """Every local maximum of a step."""
    found, retained = local_maxima(run)
    return [*(name for name, _ in found), RETAINED], [*(size for _, size in found), retained]


def chunk_only(run: Resolved) -> Maxima:
    """What a chunk retains alone."""
    return [RETAINED], [retained_bytes(run)]


def envelope_of(run: Resolved, rank: Rank, origin: Origin, sampler: Sampler = whole_step) -> Envelope | None:
    """The envelope of a kind of GPU; None where the order of events differs between the corners."""

    def sample(micro: int, more_layers: int = 0, more_chunk: int = 0) -> tuple[list[str], Integers]:
        one = replace(rank, layers=origin.layers + more_layers, chunk_layers=origin.chunk + more_chunk, in_flight=1)
        names, sizes = sampler(run_of_rank(run.computed_with(training={"micro_batch": micro}), one))
        return names, np.array(sizes, dtype=np.int64)

    m, step = origin.micro, origin.step
    corners = [sample(m), sample(m + 1)]
    if step:
        with_chunk = 0 if origin.apart else step
        corners += [sample(m, with_chunk, step), sample(m + 1, with_chunk, step)]
    if step and origin.apart:
        corners.append(sample(m, 1))
    names, base = corners[0]
    if any(other != names for other, _ in corners):
        return None
    found = np.zeros((len(base), 5), dtype=np.int64)
    found[:, 0], found[:, 1] = base, corners[1][1] - base
    if step:
        found[:, 3] = corners[2][1] - base
        found[:, 4] = corners[3][1] - corners[2][1] - found[:, 1]
    if step and origin.apart:
        found[:, 2] = corners[4][1] - base
    during = np.array([name in WITH_CHUNKS for name in names[:-1]], dtype=bool)
    rows = found[:-1]
    return Envelope(origin, undominated(rows[during]), undominated(rows[~during]), found[-1:])


def highest_at(run: Resolved, rank: Rank, micro: int, sampler: Sampler = whole_step) -> tuple[int, int, int]:
    """One simulation: the highest bytes while other chunks' activations are alive, at other times, and `retained`."""
    names, sizes = sampler(run_of_rank(run.computed_with(training={"micro_batch": micro}), replace(rank, in_flight=1)))
    pairs = list(zip(names[:-1], sizes, strict=False))
    during = max((size for name, size in pairs if name in WITH_CHUNKS), default=0)
    return during, max((size for name, size in pairs if name not in WITH_CHUNKS), default=0), sizes[-1]


def undominated(rows: Integers) -> Integers:
    """The rows that no other is above in every column: no other can hold the peak."""
    left = np.unique(rows, axis=0)
    left = left[np.argsort(-left.sum(axis=1), kind="stable")]
    kept: list[Any] = []
    while len(left):  # the first has the largest sum: none is above it
        kept.append(left[0])
        left = left[(left > left[0]).any(axis=1)]
    return np.array(kept, dtype=np.int64).reshape(-1, 5)
