"""Peak bytes of all micro-batches of a placement at once, from envelopes that many placements share; and a bound below.

The bound is what a step holds at least when its backward pass begins: weights, gradients and optimizer state, and for
each chunk in flight what its forward pass retains. It takes no simulation of a step, and rules out most of what does
not fit.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from planner.analysis.search.envelope import (
    Envelope,
    Integers,
    Origin,
    Sampler,
    chunk_only,
    envelope_of,
    highest_at,
    whole_step,
)
from planner.analysis.search.space import Choice
from planner.config.model import ModelConfig
from planner.counts.ranks import Rank, held_tensors, ranks_of, run_of_rank
from planner.counts.run import Resolved
from planner.counts.shards import gradients_cut, optimizer_cut, sharded_groups, sharing_gpus, weights_cut
from planner.memory.optimizer_state import has_narrow_gradients, optimizer_memory
from planner.memory.phases import bytes_of_micro_batches
from planner.memory.replicas import bucket_total

# below these micro-batches other kernels, or another cut of the compiled program, run: no line there
FIRST_OF_A_LINE = {"compiled": 3}
WITH_STORED_SCORES = 2  # and where tokens of several sequences are gathered
# blocks of a kind from which on one more changes every total by the same bytes; under FSDP2 two at each end differ
LINEAR_FROM, LINEAR_FROM_SHARDED = 3, 5
PLAIN = "plain"


class PeakTable:
    """Peaks by layout; simulations, and what follows from them at a number of blocks, are remembered."""

    def __init__(self, micro_batches: Sequence[int]) -> None:
        """micro_batches: all that any placement has."""
        self.micro: Integers = np.array(micro_batches, dtype=np.int64)
        self.envelopes: dict[Any, Envelope | None] = {}
        self._highest: dict[Any, Integers] = {}
        self._retained: dict[Any, Integers] = {}
        self._buffers: dict[Any, tuple[int, int]] = {}
        self._lines: dict[Any, tuple[Integers, Integers]] = {}
        self._states: dict[Any, tuple[int, int]] = {}

    def peaks(self, run: Resolved, choice: Choice, micro: Integers, sequences: int) -> Integers:
        """Requested bytes at the peak of the GPU that needs most, for each micro-batch.

        run: the placement's; micro: its micro-batches; sequences: of a replica and step.
        """
        steps, piped = sequences // micro, run.config.parallel.pp > 1
        found = np.zeros(len(micro), dtype=np.int64)
        for rank, in_flight in _kinds(run, steps):
            state = self._shared_state(run, rank)
            for adds in (True,) if piped else (True, False):
                rows = np.flatnonzero((steps > 1) == adds) if not piped else np.arange(len(micro))
                if not len(rows):
                    continue
                some = run.computed_with(training={"accumulation": 2 if adds else 1})
                during, outside, kept = self._at(some, rank, choice, whole_step)[:, self._rows(micro[rows])]
                waiting = (in_flight[rows] - 1) * kept
                more = state + self._of_more_micro_batches(some, rank, micro[rows], steps[rows]) if piped else state
                found[rows] = np.maximum(found[rows], np.maximum(during + waiting, outside) + more)
        return found

    def _of_more_micro_batches(self, run: Resolved, rank: Rank, micro: Integers, steps: Integers) -> Integers:
        """Bytes that a stage holds for the micro-batches of a step, less those for the two that `run` has.

        They are linear in both: what one and two sequences add for each micro-batch gives all.
        """
        p, t = run.config.parallel, run.config.training
        key = p.tp, p.sp, p.cp, p.interleave, p.pp_schedule, rank.embeds, rank.has_head, t.runtime, t.recipe
        if key not in self._buffers:
            one, two = (_held_for_one(run, rank, sequences) for sequences in (1, 2))
            self._buffers[key] = 2 * one - two, two - one
        always, each = self._buffers[key]
        found: Integers = (steps - 2) * (always + each * micro)
        return found

    def bounds(self, run: Resolved, choices: Sequence[Choice], micro: Integers, sequences: int) -> Integers:
        """Bytes that no peak is below, [micro-batches, choices]. Arguments as those of `peaks`."""
        steps, at = sequences // micro, self._rows(micro)
        found = np.zeros((len(micro), len(choices)), dtype=np.int64)
        for rank, in_flight in _kinds(run, steps):
            state, gradients = self._state(run, rank)
            adds = np.where((steps > 1) | (run.config.parallel.pp > 1), gradients, 0)
            kept = self._kept(run, rank, choices)[at]
            alive = state + adds[:, None] + in_flight[:, None] * kept + self._logits(run, rank, choices, micro)
            alive = alive + self._gathered(run, rank)
            found = np.maximum(found, np.maximum(alive, state + gradients))
        return found

    def _gathered(self, run: Resolved, rank: Rank) -> int:
        """Bytes of the weights that FSDP2 has gathered when backward begins: all, or those that no block holds."""
        p = run.config.parallel
        if not p.shards_weights:
            return 0
        root, blocks = sharded_groups(run_of_rank(run, rank))
        return run.recipe.compute_bytes * (root.whole + (0 if p.reshard else sum(block.whole for block in blocks)))

    def _logits(self, run: Resolved, rank: Rank, choices: Sequence[Choice], micro: Integers) -> Integers:
        """Bytes of the logits where the loss has them all at once."""
        t, vocab = run.config.training, run.config.model.vocab // run.config.parallel.tp
        each = t.seq // run.config.parallel.cp * vocab * run.recipe.compute_bytes if rank.has_head else 0
        found: Integers = micro[:, None] * np.array([[each if choice.loss == PLAIN else 0 for choice in choices]])
        return found

    def _rows(self, micro: Integers) -> Any:
        return np.searchsorted(self.micro, micro)

    def _kept(self, run: Resolved, rank: Rank, choices: Sequence[Choice]) -> Integers:
        """What a chunk retains, for all micro-batches of the table, a column for each choice."""
        p, middle = run.config.parallel, replace(rank, embeds=False, has_head=False, first_layer=rank.first_layer)
        run = run.computed_with(training={"accumulation": 2}, parallel={"zero": 0})
        key = p.tp, p.sp, p.cp, p.ep, p.fsdp, rank.first_layer, rank.chunk_layers, tuple(choices)
        if key not in self._retained:
            columns = {choice: replace(choice, loss=PLAIN) for choice in choices}
            each = {plain: self._kept_by(run, middle, plain) for plain in dict.fromkeys(columns.values())}
            self._retained[key] = np.stack([each[columns[choice]] for choice in choices], axis=1)
        return self._retained[key]

    def _kept_by(self, run: Resolved, rank: Rank, choice: Choice) -> Integers:
        """Of alike blocks each keeps the same, those that are recomputed less; others are simulated together."""
        if not _has_alike_blocks(run.config.model):
            alone: Integers = self._at(run, rank, choice, chunk_only)[2]
            return alone
        again = -(-rank.chunk_layers // choice.every) if choice.mode in ("full", "offloaded") else rank.chunk_layers
        plain = Choice(PLAIN, "none")
        kept: Integers = self._of_blocks(run, rank, replace(choice, every=1), again)
        if again < rank.chunk_layers:
            rest = self._of_blocks(run, rank, plain, rank.chunk_layers) - self._of_blocks(run, rank, plain, again)
            kept = kept + rest
        return kept

    def _of_blocks(self, run: Resolved, rank: Rank, choice: Choice, blocks: int) -> Integers:
        """What so many alike blocks keep: a line through two and three of them."""
        p = run.config.parallel
        key = p.tp, p.sp, p.cp, p.ep, p.shards_weights, choice.mode
        if key not in self._lines:
            few = (replace(rank, first_layer=0, layers=n, chunk_layers=n) for n in (2, 3))
            two, three = (self._at(run, each, choice, chunk_only)[2] for each in few)
            self._lines[key] = two, three - two
        two, each_block = self._lines[key]
        found: Integers = two + (blocks - 2) * each_block
        return found

    def _at(self, run: Resolved, rank: Rank, choice: Choice, sampler: Sampler) -> Integers:
        """During, outside, retained of a kind of GPU, [3, all micro-batches of the table]."""
        if not rank.has_head:
            choice = replace(choice, loss=PLAIN)  # the others need a head
        kind = (sampler is whole_step, *_structure(run, rank), choice)
        key = (*kind, rank.layers, rank.chunk_layers, rank.first_layer)
        if key not in self._highest:
            self._highest[key] = self._new(kind, _alone(run.computed_with(training=choice.keys)), rank, sampler)
        return self._highest[key]

    def _new(self, kind: tuple[Any, ...], run: Resolved, rank: Rank, sampler: Sampler) -> Integers:
        origin = _origin(run, rank)
        key = (*kind, origin, None if origin.step else rank.first_layer)
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
        line = envelope.at(self.micro[self.micro >= least], rank.layers, rank.chunk_layers)
        return np.concatenate((alone, line), axis=1)

    def _shared_state(self, run: Resolved, rank: Rank) -> int:
        """Bytes that the layout's replicas add to, or take from, those of one replica."""
        if _is_simulated_shared(run):
            return 0
        return self._state(run, rank)[0] - self._state(_alone(run), rank)[0]

    def _state(self, run: Resolved, rank: Rank) -> tuple[int, int]:
        """Bytes that stay, buckets included, and those of the gradients."""
        p, where = run.config.parallel, replace(rank, name="", in_flight=1)
        key = p.tp, p.ep, p.zero, p.fsdp, p.hsdp, p.ddp_bucket_view, where, sharing_gpus(run)
        if key not in self._states:
            local = run_of_rank(run, rank)
            recipe, held = run.recipe, held_tensors(local)
            weights = weights_cut(local).count(held) * recipe.weights_bytes_per_parameter
            master = optimizer_cut(local).count(held) * recipe.master_weights_bytes_per_parameter
            casts = recipe.held_casts_bytes_per_linear_weight * local.parameters.linear
            kept = weights + master + casts + optimizer_memory(local).state_bytes + bucket_total(local)
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


def _kinds(run: Resolved, steps: Integers) -> Iterable[tuple[Rank, Integers]]:
    """The kinds of GPUs, and the chunks that each keeps in flight for each number of micro-batches."""
    p = run.config.parallel
    many = max(2, int(steps.max()), 4 * p.pp)
    for rank in ranks_of(run.computed_with(training={"accumulation": many}).config):
        yield rank, np.minimum(rank.in_flight, steps * p.interleave)


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
    if few or not _has_alike_blocks(run.config.model) or t.runtime == "compiled" or not _is_updated_at_once(run):
        return Origin(first, rank.layers, rank.chunk_layers, 0, apart)
    return Origin(first, least if not apart else max(least, LINEAR_FROM), least, every, apart)


def _has_alike_blocks(model: ModelConfig) -> bool:
    """Whether all blocks are of one kind."""
    moe = model.moe
    alternating = (model.full_attention_every, model.no_position_every, moe.every if moe else None)
    return not any(alternating) and not (moe and moe.first_dense_layers)


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
