"""Bytes that no peak of a layout is below, over arrays: what most layouts that do not fit are ruled out by.

A bound is what the plan's formulas give (weights, gradients and optimizer state), what FSDP2 has gathered when backward
begins, what a stage holds for all micro-batches, for each chunk in flight what its forward pass retains, and what the
loss has alive beside them. It takes a few simulations of one to three blocks, shared by all layouts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import lcm
from typing import Any

import numpy as np

from planner.analysis.search.envelope import Floats, Integers, chunk_only
from planner.analysis.search.peaks import PLAIN, PeakTable
from planner.analysis.search.space import Choice, Choices
from planner.analysis.search.tables import Kept, LocalRuns, has_alike_blocks
from planner.counts.ranks import Rank, run_of_rank
from planner.counts.run import Resolved
from planner.counts.shards import sharded_groups
from planner.memory.phases import bytes_of_micro_batches, local_maxima, retained_bytes

LOSS_PHASES = ("forward_end", "backward_start")
BLOCKS_OF_A_LINE = (2, 3)
RETAINS_LOGITS = "compiled"  # the runtime whose program hands the logits to backward with all else that it saves


@dataclass(frozen=True, slots=True)
class StageBytes:
    """What the bytes of one kind of GPU follow from. Whole numbers in floats, which hold them exactly below 2^53.

    state: stays. gradients: of a step. gathered: weights when backward begins. held: for each micro-batch of a step,
    always and for each of its sequences. in_flight: chunks at most. kept: by a chunk, loss: by the loss beside it, both
    [micro-batches, choices]; without accumulation the logits alone.
    """

    state: float
    gradients: float
    gathered: float
    held: tuple[float, float]
    in_flight: float
    kept: Floats
    loss: Floats
    logits: Floats


class BoundTable:
    """Bounds by placement; what chunks and losses keep is simulated once for all micro-batches of the table."""

    def __init__(self, peaks: PeakTable, local: LocalRuns) -> None:
        self.peaks, self.micro, self._local = peaks, peaks.micro, local
        self._kept: Kept[Floats] = Kept()
        self._lines: dict[Any, tuple[Integers, Integers]] = {}
        self._loss: dict[Any, Integers] = {}
        self._losses: Kept[Floats] = Kept()
        self._logits: Kept[Floats] = Kept()
        self._gathered: Kept[float] = Kept()

    def terms(self, run: Resolved, ranks: Sequence[Rank], choices: Choices, near: bool) -> tuple[StageBytes, ...]:
        """What a placement's bytes follow from, by kind of GPU. near: also what takes simulations of a loss."""
        piped = run.config.parallel.pp > 1
        found = []
        for rank in ranks:
            state, gradients = self.peaks.state(run, rank)
            logits = self._logits_of(run, rank, choices)
            found.append(
                StageBytes(
                    state=state,
                    gradients=gradients,
                    gathered=self._gathered_by(run, rank),
                    held=self.peaks.held(run, rank) if piped else (0, 0),
                    in_flight=rank.in_flight,
                    kept=self._kept_of(run, rank, choices),
                    loss=self._loss_of(run, rank, choices) if near and rank.has_head else logits,
                    logits=logits,
                )
            )
        return tuple(found)

    def bounds(self, run: Resolved, choices: Choices, micro: Integers, sequences: int, near: bool = True) -> Floats:
        """Bytes that no peak of one placement is below, [micro-batches, choices]. near: as `terms`."""
        ranks = self._local.ranks(run)
        rows = np.searchsorted(self.micro, micro)
        steps = np.ones((1, len(self.micro)))
        steps[0, rows] = sequences // micro
        p = run.config.parallel
        found = bytes_below(
            [self.terms(run, ranks, choices, near)], steps, self.micro.astype(np.float64), [(p.pp > 1, p.interleave)]
        )
        here: Floats = found[0, rows]
        return here

    def _gathered_by(self, run: Resolved, rank: Rank) -> float:
        """Bytes of the weights that FSDP2 has gathered when backward begins: all, or those that no block holds."""
        p = run.config.parallel
        if not p.shards_weights:
            return 0.0
        key = p.tp, p.pp, p.cp, p.ep, p.reshard, p.hsdp, run.config.hardware.gpus, self._local.place(run, rank)
        if key not in self._gathered:
            root, blocks = sharded_groups(self._local.of(run, rank))
            whole = root.whole + (0 if p.reshard else sum(block.whole for block in blocks))
            self._gathered[key] = float(run.recipe.compute_bytes * whole)
        return self._gathered[key]

    def _kept_of(self, run: Resolved, rank: Rank, choices: Choices) -> Floats:
        """What a chunk retains, for all micro-batches of the table, a column for each choice."""
        p = run.config.parallel
        middle = replace(rank, embeds=False, has_head=False)
        first = 0 if has_alike_blocks(run.config.model) else rank.first_layer
        key = p.tp, p.sp, p.cp, p.ep, p.shards_weights, first, rank.chunk_layers, choices
        if key not in self._kept:
            run = run.computed_with(training={"accumulation": 2}, parallel={"zero": 0})
            columns = [replace(choice, loss=PLAIN) for choice in choices]
            each = {plain: self._kept_by(run, middle, plain) for plain in dict.fromkeys(columns)}
            self._kept[key] = np.stack([each[plain] for plain in columns], axis=1).astype(np.float64)
        return self._kept[key]

    def _kept_by(self, run: Resolved, rank: Rank, choice: Choice) -> Integers:
        """Of alike blocks each keeps the same, those that are recomputed less; others are simulated together."""
        if not has_alike_blocks(run.config.model):
            alone: Integers = self.peaks.at(run, rank, choice, chunk_only)[2]
            return alone
        again = -(-rank.chunk_layers // choice.every) if choice.mode in ("full", "offloaded") else rank.chunk_layers
        kept: Integers = self._of_blocks(run, rank, replace(choice, every=1), again)
        if again < rank.chunk_layers:
            plain = Choice(PLAIN, "none", 1, choice.runtime)
            rest = self._of_blocks(run, rank, plain, rank.chunk_layers) - self._of_blocks(run, rank, plain, again)
            kept = kept + rest
        return kept

    def _of_blocks(self, run: Resolved, rank: Rank, choice: Choice, blocks: int) -> Integers:
        """What so many alike blocks keep: a line through two and three of them."""
        p = run.config.parallel
        key = p.tp, p.sp, p.cp, p.ep, p.shards_weights, choice.mode, choice.runtime
        if key not in self._lines:
            few = (replace(rank, first_layer=0, layers=n, chunk_layers=n) for n in BLOCKS_OF_A_LINE)
            two, three = (self.peaks.at(run, each, choice, chunk_only)[2] for each in few)
            self._lines[key] = two, three - two
        two, each_block = self._lines[key]
        found: Integers = two + (blocks - 2) * each_block
        return found

    def _logits_of(self, run: Resolved, rank: Rank, choices: Choices) -> Floats:
        """The logits of a loss that has them all at once; 0 of a compiled program, which retains them."""
        p, t = run.config.parallel, run.config.training
        key = p.tp, p.cp, rank.has_head, choices
        if key not in self._logits:
            each = t.seq // p.cp * (run.config.model.vocab // p.tp) * run.recipe.compute_bytes * rank.has_head
            plain = np.array([choice.loss == PLAIN and choice.runtime != RETAINS_LOGITS for choice in choices])
            self._logits[key] = self.micro[:, None].astype(np.float64) * (each * plain)
        return self._logits[key]

    def _loss_of(self, run: Resolved, rank: Rank, choices: Choices) -> Floats:
        """What the loss has alive beside what a chunk keeps."""
        p = run.config.parallel
        key = p.tp, p.sp, p.cp, p.ep, p.shards_weights, rank.embeds, choices
        if key not in self._losses:
            # other losses have few logits at a time: what they have alive is not worth a simulation
            nothing = np.zeros_like(self.micro)
            each = [self._loss_by(run, rank.embeds, c) if c.loss == PLAIN else nothing for c in choices]
            beside = np.stack(each, axis=1).astype(np.float64)
            self._losses[key] = np.maximum(beside, self._logits_of(run, rank, choices))
        return self._losses[key]

    def _loss_by(self, run: Resolved, embeds: bool, choice: Choice) -> Integers:
        """For each micro-batch of the table: a line through samples."""
        if choice.runtime == RETAINS_LOGITS:
            return np.zeros_like(self.micro)
        p, run, loss = run.config.parallel, run.computed_with(training={"runtime": choice.runtime}), choice.loss
        key = p.tp, p.sp, p.cp, p.ep, p.shards_weights, embeds, loss, choice.runtime
        if key not in self._loss:
            one, two = (self._loss_at(run, embeds, loss, micro) for micro in (1, 2))
            # with sequence parallelism one sequence needs no copy that two need
            more = self._loss_at(run, embeds, loss, 3) - two if p.sp else two - one
            self._loss[key] = np.where(self.micro < 2, one, two + (self.micro - 2) * max(0, more))
        return self._loss[key]

    def _loss_at(self, run: Resolved, embeds: bool, loss: str, micro: int) -> int:
        """Bytes alive at the loss of a GPU with one block and the head, less what a bound has by itself."""
        p = run.config.parallel
        sharded = p.shards_weights
        shared: dict[str, Any] = {"zero": 0, "fsdp": sharded, "ddp_bucket_view": not sharded, "hsdp": None, "pp": 1}
        # the block stays gathered, so that it is counted with the rest
        shared |= {"reshard": not sharded, "interleave": 1, "pp_schedule": "1f1b"}
        few = lcm(p.cp, p.ep, 2 if sharded else 1)  # the fewest pad least
        whole = Choice(loss, "none", 1, run.config.training.runtime)
        training = {**whole.keys, "accumulation": 2, "micro_batch": micro}
        one = run.computed_with(parallel=shared, hardware={"gpus": p.tp * few}, training=training)
        head = Rank("", run.config.model.layers - 1, 1, 1, embeds, True, 1)
        local = run_of_rank(one, head)
        maxima, _ = local_maxima(local)
        top = max(each.size for each in maxima if each.phase in LOSS_PHASES) - bytes_of_micro_batches(local)
        kept = retained_bytes(run_of_rank(one, replace(head, embeds=False, has_head=False)))
        state, gradients = self.peaks.state(one, head)
        return max(0, top - state - gradients - kept - int(self._gathered_by(one, head)))


def bytes_below(
    terms: Sequence[tuple[StageBytes, ...]], steps: Floats, micro: Integers, pipelines: Sequence[tuple[bool, int]]
) -> Floats:
    """Bytes that no peak is below, of placements with as many kinds of GPUs each: [placements, micro-batches, choices].

    steps: micro-batches of a step, [placements, micro-batches]. pipelines: whether a placement is one, and its chunks.
    """
    piped = np.array([each for each, _ in pipelines])[:, None]
    chunks = np.array([chunks for _, chunks in pipelines], dtype=np.float64)[:, None]
    adds = piped | (steps > 1)
    found: Any = None
    rows = steps.shape[1]
    for stage in zip(*terms, strict=True):
        column = [np.array([getattr(s, name) for s in stage])[:, None] for name in ("state", "gradients", "gathered")]
        state, gradients, gathered = column
        held = np.array([s.held for s in stage], dtype=np.float64)
        stay = state + steps * (held[:, :1] + held[:, 1:] * micro)
        in_flight = np.minimum(np.array([[s.in_flight] for s in stage]), steps * chunks)
        kept, loss, logits = (np.stack([getattr(s, name)[:rows] for s in stage]) for name in ("kept", "loss", "logits"))
        alive = kept * in_flight[:, :, None]
        alive += np.where(adds[:, :, None], loss, logits)
        alive += (stay + np.where(adds, gradients, 0) + gathered)[:, :, None]
        np.maximum(alive, (stay + gradients)[:, :, None], out=alive)
        found = alive if found is None else np.maximum(found, alive, out=found)
    whole: Floats = found
    return whole
