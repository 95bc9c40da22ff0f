"""Simulates one micro-batch: the network forward and backward, with the phases marked.

Of a run of alike blocks only the first and the last are simulated; those between are added at once. This is exact,
because every total is linear in the block's number, so its maximum is at an end. If kinds of blocks alternate (every
k-th block is checkpointed, or has no rotary embedding), the unit that repeats is k blocks.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from planner.formulas.itemsize import INT64
from planner.memory.compiled import compiled_program
from planner.memory.eager.autograd import Autograd
from planner.memory.eager.context import SimulationContext
from planner.memory.eager.graph import Storage, Tensor
from planner.memory.eager.model import Block, Network
from planner.memory.eager.moe import balanced_loss
from planner.memory.eager.operators import gradient_hook, scale
from planner.memory.eager.sdpa import document_masks
from planner.memory.fully_sharded import ROOT, FullySharded
from planner.memory.ledger import Ledger
from planner.memory.megatron import fused_program
from planner.memory.stages import Program, ProgramSimulation

BlockRun = tuple[int, int, int]  # first block, blocks of one unit, units
SIMULATED_UNITS = 4  # under FSDP2: two at each end
PROGRAMS: dict[str, Callable[[SimulationContext], Program]] = {"compiled": compiled_program, "fused": fused_program}


def simulate_micro_batch(
    ctx: SimulationContext, e: Autograd, every_block: bool = False, sharded: FullySharded | None = None
) -> None:
    """Simulate forward and backward; phases forward_end, backward_start, backward_block, backward_end.

    every_block: simulate each block; none is added at once. sharded: FSDP2.
    """
    ledger = e.ledger
    if ctx.training.runtime in PROGRAMS:
        ledger.phase("forward_end")
        backward = ProgramSimulation(PROGRAMS[ctx.training.runtime](ctx), e).forward()
        ledger.phase("backward_start")
        backward()
        return
    loss = _forward(ctx, e, every_block, sharded)
    if e.returned_logits is not None:
        e.previous_logits, e.returned_logits = e.returned_logits, None
    if ctx.rank.has_head:
        loss = scale(e, loss)  # by the tokens of the step
    ledger.phase("backward_start")
    e.backward(loss, received=not ctx.rank.has_head)
    if sharded is not None:
        sharded.after_backward(ROOT)


def retained_by_forward(ctx: SimulationContext, e: Autograd) -> dict[str, int]:
    """Bytes by component that a chunk of blocks keeps from its forward to its backward pass, buffers aside."""
    return kept_by_forward(ctx.plain_chunk(), e)


def kept_by_forward(ctx: SimulationContext, e: Autograd) -> dict[str, int]:
    """The same of a chunk as it is: with its embedding, and its loss, where it has them."""
    before, saved = dict(e.ledger.live), dict(e.saved_by_operator)
    if ctx.training.runtime in PROGRAMS:
        kept: object = ProgramSimulation(PROGRAMS[ctx.training.runtime](ctx), e).forward()
    else:
        kept = _forward(ctx, e, False, None)
    found = {component: size - before[component] for component, size in e.ledger.live.items()}
    del kept
    for component, size in before.items():  # those of the blocks added at once, which only a backward pass frees
        e.ledger.release(component, e.ledger.live[component] - size)
    e.saved_by_operator = saved
    return {component: size for component, size in found.items() if size > 0}


def simulate_evaluation(
    ctx: SimulationContext, e: Autograd, every_block: bool = False, sharded: FullySharded | None = None
) -> None:
    """Simulate a forward pass without a graph: only a block's output outlives it."""
    if ctx.training.runtime in PROGRAMS:
        ProgramSimulation(PROGRAMS[ctx.training.runtime](ctx), e).evaluation()
        return
    e.recording = False
    _forward(ctx, e, every_block, sharded)
    e.recording = True


def _forward(ctx: SimulationContext, e: Autograd, every_block: bool, sharded: FullySharded | None) -> Tensor:
    """The loss, or what the next stage of a pipeline receives.

    Under autocast the cached casts of all blocks' weights stay until it is made.
    """
    ledger, network = e.ledger, Network(ctx)
    ids, targets = _inputs(ctx, ledger)
    if e.recording:
        ledger.phase("forward_end")
    if sharded is not None:
        sharded.before_forward(ROOT)
    e.masks = document_masks(e, ctx)
    stream = [network.embed(e, ids) if ctx.rank.embeds else network.receive(e)]
    if sharded is None:
        stream[0] = gradient_hook(e, stream[0], lambda: ledger.phase("backward_end"))
    if sharded is None:
        for run in block_runs(ctx):
            _simulate_blocks(ctx, e, stream, run, every_block)
    else:
        _simulate_sharded_blocks(ctx, e, stream, sharded_blocks(ctx, every_block), sharded)
    if ctx.rank.has_head:
        hidden = network.last_norm(e, stream[0])
        stream.clear()
        e.masks = (None, None)  # the trainer holds the tables of positions until here
        loss = network.loss(e, hidden, targets)
        del hidden
    else:
        e.masks = (None, None)
        loss = gradient_hook(e, stream.pop(), lambda: ledger.phase("backward_block"))
    e.leave_autocast()
    loss = balanced_loss(e, ctx, loss, targets)
    if sharded is not None:
        sharded.after_forward(ROOT)
        if e.recording:
            loss = gradient_hook(e, loss, partial(sharded.before_backward, ROOT))
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


def sharded_blocks(ctx: SimulationContext, every_block: bool) -> tuple[list[range], int]:
    """The units of blocks that are simulated under FSDP2, and how many more are like the second of them.

    Around a block its neighbours' weights are gathered, so that the first two and the last two units differ from those
    between. All are simulated where the blocks are not one run of alike units.
    """
    runs = block_runs(ctx)
    if every_block or len(runs) > 1 or runs[0][2] <= SIMULATED_UNITS:
        return [range(i, i + 1) for i in range(ctx.shape.layers)], 0
    _, unit, times = runs[0]
    return [range(i * unit, (i + 1) * unit) for i in (0, 1, times - 2, times - 1)], times - SIMULATED_UNITS


def _simulate_sharded_blocks(
    ctx: SimulationContext,
    e: Autograd,
    stream: list[Tensor],
    blocks: tuple[list[range], int],
    sharded: FullySharded,
) -> None:
    """Simulate all blocks under FSDP2. Between the ends every total is linear in the unit's number."""
    ledger, (units, added) = e.ledger, blocks
    before_first: list[dict[str, int]] = []
    for position, unit in enumerate(units):
        before, saved_before = dict(ledger.live), dict(e.saved_by_operator)
        _simulate_unit(ctx, e, stream, unit, 0, sharded)
        if not added:
            continue
        if position == 1:
            ledger.repeat(before, added)
            for label, size in e.saved_by_operator.items():
                e.saved_by_operator[label] += (size - saved_before.get(label, 0)) * added
            # the hooks run in backward, the later unit's first: one unit's change is known when the repeated one begins
            stream[0] = gradient_hook(e, stream[0], lambda: ledger.repeat(before_first[0], added))
        if position == 2:
            stream[0] = gradient_hook(e, stream[0], lambda: before_first.append(dict(ledger.live)))


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
    if times == 1 or (not e.recording and not every_block and ledger.live == before):
        return  # without a graph a block that leaves nothing behind repeats the first to the byte
    at_end: list[dict[str, int]] = []
    if added:
        stream[0] = gradient_hook(e, stream[0], lambda: ledger.repeat(at_end[0], added))
    for index in range(1, times - added):
        _simulate_unit(ctx, e, stream, range(start + index * unit, start + (index + 1) * unit), 0)
    # the gradient that a stage receives stays in its buffer, where a block's output's is freed for its input's
    kept = 0 if ctx.rank.has_head or start + unit * times < ctx.shape.layers else stream[0].nbytes
    stream[0] = gradient_hook(
        e, stream[0], lambda: at_end.append(ledger.live | {"temporary": ledger.live["temporary"] + kept})
    )


def _simulate_unit(
    ctx: SimulationContext,
    e: Autograd,
    stream: list[Tensor],
    blocks: range,
    added: int,
    sharded: FullySharded | None = None,
) -> None:
    e.enter_unit(added)
    for index in blocks:
        block = Block(ctx, index)
        block.attention.masks = e.masks
        if sharded is not None:
            sharded.before_forward(index)
            if e.recording:
                stream[0] = gradient_hook(e, stream[0], partial(sharded.after_backward, index))
        if ctx.recomputes(index):
            stream[0] = e.checkpoint("blocks", block, stream[0])
        else:
            stream[0] = block(e, stream[0])
        del block
        if sharded is not None:
            sharded.after_forward(index)
            if e.recording:
                stream[0] = gradient_hook(e, stream[0], partial(sharded.before_backward, index))


def _inputs(ctx: SimulationContext, ledger: Ledger) -> tuple[Tensor, Tensor]:
    first, second = (Tensor(_External(ledger, ctx.tokens), ctx.tokens, INT64) for _ in range(2))
    return first, second


class _External(Storage):
    """Token ids and targets: alive for the every_block step, counted with the inputs."""

    __slots__ = ()

    def __init__(self, ledger: Ledger, tokens: int) -> None:
        self.ledger, self.size, self.component = ledger, tokens * INT64, "activations"
        self.saved, self.key = False, 0

    def __del__(self) -> None:
        pass
