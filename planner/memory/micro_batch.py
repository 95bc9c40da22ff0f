"""Simulates one micro-batch: the network forward and backward, with the phases marked.

Of a run of alike blocks only the first and the last are simulated; those between are added at once. This is exact,
because every total is linear in the block's number, so its maximum is at an end. If kinds of blocks alternate (every
k-th block is checkpointed, or has no rotary embedding), the unit that repeats is k blocks.
"""

from __future__ import annotations

from collections.abc import Callable

from planner.formulas.itemsize import INT64
from planner.memory.compiled import compiled_program
from planner.memory.eager.autograd import Autograd
from planner.memory.eager.context import SimulationContext
from planner.memory.eager.graph import Storage, Tensor
from planner.memory.eager.model import Block, Network
from planner.memory.eager.operators import gradient_hook, scale
from planner.memory.eager.sdpa import document_masks
from planner.memory.ledger import Ledger
from planner.memory.megatron import fused_program
from planner.memory.stages import Program, ProgramSimulation

BlockRun = tuple[int, int, int]  # first block, blocks of one unit, units
PROGRAMS: dict[str, Callable[[SimulationContext], Program]] = {"compiled": compiled_program, "fused": fused_program}


def simulate_micro_batch(ctx: SimulationContext, e: Autograd, every_block: bool = False) -> None:
    """Simulate forward and backward; phases forward_end, backward_start, backward_block, backward_end.

    every_block: simulate each block; none is added at once.
    """
    ledger = e.ledger
    if ctx.training.runtime in PROGRAMS:
        ledger.phase("forward_end")
        backward = ProgramSimulation(PROGRAMS[ctx.training.runtime](ctx), e).forward()
        ledger.phase("backward_start")
        backward()
        return
    loss = _forward(ctx, e, every_block)
    if e.returned_logits is not None:
        e.previous_logits, e.returned_logits = e.returned_logits, None
    loss = scale(e, loss)  # by the tokens of the step
    ledger.phase("backward_start")
    e.backward(loss)


def simulate_evaluation(ctx: SimulationContext, e: Autograd, every_block: bool = False) -> None:
    """Simulate a forward pass without a graph: only a block's output outlives it."""
    if ctx.training.runtime in PROGRAMS:
        ProgramSimulation(PROGRAMS[ctx.training.runtime](ctx), e).evaluation()
        return
    e.recording = False
    _forward(ctx, e, every_block)
    e.recording = True


def _forward(ctx: SimulationContext, e: Autograd, every_block: bool) -> Tensor:
    """The loss. Under autocast the cached casts of all blocks' weights stay until it is made."""
    ledger, network = e.ledger, Network(ctx)
    ids, targets = _inputs(ctx, ledger)
    if e.recording:
        ledger.phase("forward_end")
    e.masks = document_masks(e, ctx)
    stream = [gradient_hook(e, network.embed(e, ids), lambda: ledger.phase("backward_end"))]
    for run in block_runs(ctx):
        _simulate_blocks(ctx, e, stream, run, every_block)
    hidden = network.last_norm(e, stream[0])
    stream.clear()
    e.masks = (None, None)
    loss = network.loss(e, hidden, targets)
    del hidden
    e.leave_autocast()
    return loss


def block_runs(ctx: SimulationContext) -> list[BlockRun]:
    """The blocks as runs of alike units: dense blocks, then blocks with experts."""
    layers, moe = ctx.shape.layers, ctx.model.moe
    border = layers if moe is None else moe.first_dense_layers
    runs = []
    for begin, end in ((0, border), (border, layers)):
        length = end - begin
        if not length:
            continue
        unit = min(length, ctx.period)
        if len({ctx.block_kind(i) for i in range(begin, begin + unit)}) == 1 and unit == ctx.period:
            unit = 1
        runs.append((begin, unit, length // unit))
        if length % unit:
            runs.append((end - length % unit, length % unit, 1))
    return runs


def _simulate_blocks(
    ctx: SimulationContext, e: Autograd, stream: list[Tensor], run: BlockRun, every_block: bool
) -> None:
    """Simulate one run. Only `stream` refers to the residual stream: a name would keep a block's input alive."""
    ledger = e.ledger
    start, unit, times = run
    added = 0 if every_block else max(0, times - 2)
    before, saved_before = dict(ledger.live), dict(e.saved_by_operator)
    _simulate_unit(ctx, e, stream, range(start, start + unit), added)
    if added:
        ledger.repeat(before, added)
        for label, size in e.saved_by_operator.items():
            e.saved_by_operator[label] += (size - saved_before.get(label, 0)) * added
    if times == 1:
        return
    at_end: list[dict[str, int]] = []
    if added:
        stream[0] = gradient_hook(e, stream[0], lambda: ledger.repeat(at_end[0], added))
    for index in range(1, times - added):
        _simulate_unit(ctx, e, stream, range(start + index * unit, start + (index + 1) * unit), 0)
    stream[0] = gradient_hook(e, stream[0], lambda: at_end.append(dict(ledger.live)))


def _simulate_unit(ctx: SimulationContext, e: Autograd, stream: list[Tensor], blocks: range, added: int) -> None:
    e.enter_unit(added)
    for index in blocks:
        block = Block(ctx, index)
        block.attention.masks = e.masks
        if ctx.recomputes(index):
            stream[0] = e.checkpoint("blocks", block, stream[0])
        else:
            stream[0] = block(e, stream[0])
        del block


def _inputs(ctx: SimulationContext, ledger: Ledger) -> tuple[Tensor, Tensor]:
    first, second = (Tensor(_External(ledger, ctx.tokens), ctx.tokens, INT64) for _ in range(2))
    return first, second


class _External(Storage):
    """Token ids and targets: alive for the every_block step, counted with the inputs."""

    __slots__ = ()

    def __init__(self, ledger: Ledger, tokens: int) -> None:
        self.ledger, self.size, self.component = ledger, tokens * INT64, "activations"
        self.saved, self.viewed, self.key = False, False, 0

    def __del__(self) -> None:
        pass
