"""Peak bytes of the layouts of a placement, exact: of one from a simulation, of all micro-batches from envelopes.

A kind of GPU that is asked for once or twice is simulated for the micro-batch in question; then its envelope is made,
which many placements share.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from planner.analysis.search.envelope import (
    Envelope,
    Integers,
    Origin,
    Sampler,
    envelope_of,
    highest_at,
    whole_step,
)
from planner.analysis.search.space import Choice
from planner.analysis.search.tables import Kept, LocalRuns, has_alike_blocks
from planner.counts.ranks import Rank, held_tensors, run_of_rank
from planner.counts.run import Resolved
from planner.counts.shards import gradients_cut, optimizer_cut, sharing_gpus, weights_cut
from planner.memory.kernel_scratch import multiprocessors_of
from planner.memory.optimizer_state import has_narrow_gradients, optimizer_memory
from planner.memory.phases import bytes_of_micro_batches
from planner.memory.replicas import bucket_total, gradients_stay

# below these micro-batches other kernels, or another cut of the compiled program, run: no line there
FIRST_OF_A_LINE = {"compiled": 3}
WITH_STORED_SCORES = 2  # and where tokens of several sequences are gathered
# blocks of a kind from which on one more changes every total by the same bytes; under FSDP2 two at each end differ
LINEAR_FROM, LINEAR_FROM_SHARDED = 3, 5
PLAIN = "plain"
MOST_ALONE = 2  # micro-batches of a kind of GPU that are simulated alone: an envelope takes two to five simulations


class PeakTable:
    """Peaks by layout; simulations, and what follows from them at a number of blocks, are remembered."""

    def __init__(self, micro_batches: Sequence[int], local: LocalRuns) -> None:
        """micro_batches: all that any placement has."""
        self.micro: Integers = np.array(micro_batches, dtype=np.int64)
        self.envelopes: Kept[Envelope | None] = Kept()
        self.simulated = 0  # kinds of GPUs whose whole steps were simulated
        self._local = local
        self._highest: Kept[Integers] = Kept()
        self._alone: Kept[dict[int, tuple[int, int, int]]] = Kept()
        self._held: dict[Any, tuple[int, int]] = {}
        self._states: Kept[tuple[int, int]] = Kept()

    def peaks(self, run: Resolved, choice: Choice, micro: Integers, sequences: int) -> Integers:
        """Requested bytes at the peak of the GPU that needs most, for each micro-batch.

        run: the placement's; micro: its micro-batches; sequences: of a replica and step.
        """
        steps, piped = sequences // micro, run.config.parallel.pp > 1
        found = np.zeros(len(micro), dtype=np.int64)
        for adds in (True,) if piped else (True, False):
            rows = np.flatnonzero((steps > 1) == adds) if not piped else np.arange(len(micro))
            if not len(rows):
                continue
            for rank, some, state in self._kinds(run, choice, adds):
                highest = self.at(some, rank, choice, whole_step)[:, np.searchsorted(self.micro, micro[rows])]
                found[rows] = np.maximum(found[rows], self._sum(some, rank, highest, state, (micro[rows], steps[rows])))
        return found

    def peak(self, run: Resolved, choice: Choice, micro: int, sequences: int) -> int:
        """As `peaks`, of one micro-batch."""
        steps, found = sequences // micro, 0
        for rank, some, state in self._kinds(run, choice, steps > 1 or run.config.parallel.pp > 1):
            highest = np.array(self._one(some, rank, choice, micro), dtype=np.int64)[:, None]
            batch = np.array([micro]), np.array([steps])
            found = max(found, int(self._sum(some, rank, highest, state, batch)[0]))
        return found

    def _kinds(self, run: Resolved, choice: Choice, adds: bool) -> Iterator[tuple[Rank, Resolved, int]]:
        """Each kind of GPU, the run that is simulated for it, and what its replicas add to the bytes of the state."""
        some = run.computed_with(training={"accumulation": 2 if adds else 1, "runtime": choice.runtime})
        # gradients that never go are there from the first micro-batch on, as others are from the second
        simulated = some.computed_with(training={"accumulation": 2}) if gradients_stay(some) else some
        for rank in self._local.ranks(run):
            yield rank, simulated, self._shared_state(some, rank)

    def _sum(
        self, run: Resolved, rank: Rank, highest: Integers, state: int, batch: tuple[Integers, Integers]
    ) -> Integers:
        """The peak with all chunks in flight. highest: during, outside, retained. batch: micro-batches, how many."""
        (during, outside, kept), (micro, steps) = highest, batch
        p = run.config.parallel
        waiting = (np.minimum(rank.in_flight, steps * p.interleave) - 1) * kept
        found: Integers = np.maximum(during + waiting, outside) + state
        if p.pp == 1:
            return found
        always, each = self.held(run, rank)
        more: Integers = found + (steps - 2) * (always + each * micro)  # two are simulated
        return more

    def held(self, run: Resolved, rank: Rank) -> tuple[int, int]:
        """Bytes that a stage holds for each micro-batch of a step: always, and for each of its sequences."""
        p, t = run.config.parallel, run.config.training
        key = p.tp, p.sp, p.cp, p.interleave, p.pp_schedule, rank.embeds, rank.has_head, t.runtime, t.recipe
        if key not in self._held:
            one, two = (_held_for_one(run, rank, sequences) for sequences in (1, 2))
            self._held[key] = 2 * one - two, two - one
        return self._held[key]

    def _one(self, run: Resolved, rank: Rank, choice: Choice, micro: int) -> tuple[int, int, int]:
        """During, outside, retained of a kind of GPU with one micro-batch."""
        choice, _, key = self._keys(run, rank, choice, whole_step)
        alone = self._alone.get(key, {})
        if key not in self._highest and micro not in alone and len(alone) < MOST_ALONE:
            if key not in self._alone:
                self._alone[key] = alone
                self.simulated += 1
            alone[micro] = highest_at(_alone(run.computed_with(training=choice.keys)), rank, micro)
        if micro in alone:
            return alone[micro]
        during, outside, kept = self.at(run, rank, choice, whole_step)[:, np.searchsorted(self.micro, micro)]
        return int(during), int(outside), int(kept)

    def _keys(
        self, run: Resolved, rank: Rank, choice: Choice, sampler: Sampler
    ) -> tuple[Choice, tuple[Any, ...], tuple[Any, ...]]:
        """The choice that is simulated, what tells its envelope from others (no card), and what its bytes."""
        if not rank.has_head:
            choice = replace(choice, loss=PLAIN)  # the others need a head
        if choice.every > rank.chunk_layers:  # the first block of a chunk is recomputed alone
            choice = replace(choice, every=max(1, rank.chunk_layers))
        kind = (sampler is whole_step, *_structure(run, rank), choice)
        card = multiprocessors_of(run.gpu)
        return choice, kind, (*kind, rank.layers, rank.chunk_layers, self._first(run, rank), card)

    def _first(self, run: Resolved, rank: Rank) -> int:
        """The number of the first block, where it matters which one it is."""
        return 0 if has_alike_blocks(run.config.model) else rank.first_layer

    def at(self, run: Resolved, rank: Rank, choice: Choice, sampler: Sampler) -> Integers:
        """During, outside, retained of a kind of GPU, [3, all micro-batches of the table]."""
        choice, kind, key = self._keys(run, rank, choice, sampler)
        if key not in self._highest:
            self._highest[key] = self._new(kind, _alone(run.computed_with(training=choice.keys)), rank, sampler)
        return self._highest[key]

    def _new(self, kind: tuple[Any, ...], run: Resolved, rank: Rank, sampler: Sampler) -> Integers:
        origin = _origin(run, rank)
        key = (*kind, origin, None if origin.step else self._first(run, rank))
        if key not in self.envelopes:
            # at one sequence some layouts need no copy that they need at two
            later = (replace(origin, micro=origin.micro + more) for more in (0, 1))
            self.envelopes[key] = next(filter(None, (envelope_of(run, rank, o, sampler) for o in later)), None)
        envelope = self.envelopes[key]
        least = envelope.origin.micro if envelope else self.micro[-1] + 1
        parts = [highest_at(run, rank, int(m), sampler) for m in self.micro[self.micro < least]]
        alone: Integers = np.array(parts, dtype=np.int64).reshape(-1, 3).T
        if envelope is None:
            return alone
        card = multiprocessors_of(run.gpu)
        line = envelope.at(self.micro[self.micro >= least], rank.layers, rank.chunk_layers, card)
        return np.concatenate((alone, line), axis=1)

    def _shared_state(self, run: Resolved, rank: Rank) -> int:
        """Bytes that the layout's replicas add to, or take from, those of one replica."""
        if _is_simulated_shared(run):
            return 0
        return self.state(run, rank)[0] - self.state(_alone(run), rank)[0]

    def state(self, run: Resolved, rank: Rank) -> tuple[int, int]:
        """Bytes that stay, buckets included, and those of the gradients."""
        p = run.config.parallel
        shared = p.zero, p.fsdp, p.hsdp, p.ddp_bucket_view
        key = p.tp, p.ep, shared, gradients_stay(run), self._local.place(run, rank), sharing_gpus(run)
        if key not in self._states:
            local = self._local.of(run, rank)
            recipe, held = run.recipe, held_tensors(local)
            weights = weights_cut(local).count(held) * recipe.weights_bytes_per_parameter
            master = optimizer_cut(local).count(held) * recipe.master_weights_bytes_per_parameter
            casts = recipe.held_casts_bytes_per_linear_weight * local.parameters.linear
            # the run of a rank is remembered whatever its number of micro-batches
            buckets = bucket_total(local.computed_with(training={"accumulation": run.config.training.accumulation}))
            kept = weights + master + casts + optimizer_memory(local).state_bytes + buckets
            self._states[key] = kept, gradients_cut(local).count(held) * recipe.gradients_bytes_per_parameter
        return self._states[key]


def _held_for_one(run: Resolved, rank: Rank, sequences: int) -> int:
    """Bytes that a stage holds for each micro-batch of so many sequences."""
    one, two = (
        bytes_of_micro_batches(
            run_of_rank(run.computed_with(training={"micro_batch": sequences, "accumulation": n}), rank)
        )
        for n in (1, 2)
    )
    return two - one


def _structure(run: Resolved, rank: Rank) -> tuple[Any, ...]:
    """What tells one simulation from another, number of blocks, micro-batch and choice aside."""
    p = run.config.parallel
    shared = (p.zero, p.reshard, p.hsdp, sharing_gpus(run)) if _is_simulated_shared(run) else ()
    adds = p.pp > 1 or run.config.training.accumulation > 1
    piped = (p.interleave, p.pp_schedule) if p.pp > 1 else ()  # the buffers of a stage go by its chunks and their order
    return p.tp, p.sp, p.cp, p.ep, rank.embeds, rank.has_head, piped, adds, p.fsdp, shared


def _origin(run: Resolved, rank: Rank) -> Origin:
    """Where the envelope begins that a kind of GPU is on: at its own blocks, without a step, where no longer one is."""
    t, every = run.config.training, 1
    if t.activation_checkpointing in ("full", "offloaded"):
        every = t.activation_checkpointing_every
    stored, gathered = t.attention_kernel == "math", run.config.parallel.sp
    first = max(FIRST_OF_A_LINE.get(t.runtime, 1), WITH_STORED_SCORES if stored or gathered else 1)
    sharded, left = run.config.parallel.shards_weights, rank.chunk_layers % every
    least = left + every * (LINEAR_FROM_SHARDED if sharded else LINEAR_FROM)
    apart = rank.chunk_layers != rank.layers
    # parts of single gradients are rounded up, so that ZeRO-2's sum is no line
    few = rank.chunk_layers < least or (sharded and left) or run.config.parallel.zero == 2
    few = few or run.config.parallel.pp == 1  # all blocks on each GPU: no other number of them
    if few or not has_alike_blocks(run.config.model) or t.runtime == "compiled" or not _is_updated_at_once(run):
        return Origin(first, rank.layers, rank.chunk_layers, 0, apart)
    return Origin(first, least if not apart else max(least, LINEAR_FROM), least, every, apart)


def _is_updated_at_once(run: Resolved) -> bool:
    """Whether the update has no scratch that depends on the number or the parts of its tensors."""
    o = run.config.optimizer
    plain = o.name in ("adamw", "sgd") and o.state_dtype is None and o.implementation == "fused" and not o.groups
    return plain and not has_narrow_gradients(run.recipe)


def _is_simulated_shared(run: Resolved) -> bool:
    """Whether the simulation itself sees among how many GPUs the state is shared."""
    p = run.config.parallel
    return p.shards_weights or p.zero == 2 or (p.zero == 1 and not _is_updated_at_once(run))


def _alone(run: Resolved) -> Resolved:
    """The run with one replica, so that nothing is shared; what is simulated shared stays as it is."""
    p = run.config.parallel
    if _is_simulated_shared(run):
        return run
    one = {"gpus": p.gpus_per_replica * p.ep}
    return run.computed_with(hardware=one, parallel={"zero": 0, "ddp_bucket_view": True})
