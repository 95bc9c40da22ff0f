"""The output head and the loss over the vocabulary. Simulates `reference_trainer/model/losses.py`."""

from __future__ import annotations

from planner.formulas.itemsize import FP32, INT64
from planner.memory.eager import operators as op
from planner.memory.eager.autograd import Autograd
from planner.memory.eager.context import SimulationContext
from planner.memory.eager.graph import Gradient, Saved, Tensor
from planner.memory.eager.layers import Linear
from planner.memory.eager.tensor_parallel import entering, parallel_cross_entropy_sum


def plain_loss(e: Autograd, ctx: SimulationContext, head: Linear, hidden: Tensor, targets: Tensor) -> Tensor:
    """Head, fp32 logits, cross-entropy: all logits at once."""
    return _head_loss(e, ctx, head, hidden, targets, True)


def _head_loss(
    e: Autograd, ctx: SimulationContext, head: Linear, hidden: Tensor, targets: Tensor, enters: bool
) -> Tensor:
    logits = head(e, entering(e, ctx, hidden) if enters else hidden)
    logits.relabel("logits")
    wide = op.cast(e, logits, FP32)
    if ctx.training.returns_logits and e.recording:
        e.returned_logits = logits.storage
    del logits
    e.label = "loss"
    wide.relabel("logits")
    given = wide if enters else None  # the plain loss is handed its logits: a name of its caller keeps them
    if ctx.model.logit_softcap is not None:
        wide = op.soft_cap(e, wide)
        wide.relabel("logits")
    loss = (op.cross_entropy_sum if ctx.parallel.tp == 1 else parallel_cross_entropy_sum)(e, wide, targets)
    del given
    return loss


def chunked_loss(e: Autograd, ctx: SimulationContext, head: Linear, hidden: Tensor, targets: Tensor) -> Tensor:
    """Head and cross-entropy, one chunk of tokens after the other, each chunk checkpointed."""
    e.label = "loss"
    total = e.empty(1, FP32)
    counts, hidden = chunk_sizes(ctx), entering(e, ctx, hidden)
    parts = op.split(e, hidden, tuple(n * ctx.shape.hidden for n in counts))
    for part, tokens in zip(parts, counts, strict=True):
        chunk_targets = targets.view(tokens, None)
        loss = e.checkpoint("loss", lambda e, x, y: _head_loss(e, ctx, head, x, y, False), part, chunk_targets)
        total = op.add(e, total, loss)
        del loss
    return total


def chunk_sizes(ctx: SimulationContext) -> tuple[int, ...]:
    """Tokens of each chunk; only the last may be smaller (torch.chunk)."""
    size = -(-ctx.tokens // ctx.training.loss_chunks)
    whole, rest = divmod(ctx.tokens, size)
    return (size,) * whole + ((rest,) if rest else ())


def fused_loss(e: Autograd, ctx: SimulationContext, head: Linear, hidden: Tensor, targets: Tensor) -> Tensor:
    """Fused loss: forward makes and saves the gradients of hidden states and head weight, chunk by chunk."""
    e.label = "loss"
    total, hidden = e.empty(1, FP32), entering(e, ctx, hidden)
    node = e.node((hidden, head.weight), _made_in_forward)
    gradients: list[Tensor] = []
    if node is not None:
        gradients = [e.empty(hidden.count, hidden.itemsize), e.empty(head.weight.count, head.weight.itemsize)]
    narrow = None if head.weight.itemsize == ctx.compute_bytes else e.empty(head.weight.count, ctx.compute_bytes)
    narrow_hidden = None if hidden.itemsize == ctx.compute_bytes else e.empty(hidden.count, ctx.compute_bytes)
    for tokens in chunk_sizes(ctx):
        _chunk_gradients(e, ctx, tokens, head.weight.count, bool(gradients))
    del narrow, narrow_hidden
    e.save(node, *gradients)
    total.node = node
    return total


def _made_in_forward(grads: list[Gradient], saved: Saved) -> list[Gradient]:
    return list(saved)


def _chunk_gradients(e: Autograd, ctx: SimulationContext, tokens: int, head: int, with_gradients: bool) -> None:
    """The loss of one chunk; its logits are overwritten by their gradient, from which the other gradients follow."""
    logits = tokens * ctx.shape.vocab
    narrow = e.allocate(logits * ctx.compute_bytes, "logits")
    wide = narrow if ctx.compute_bytes == FP32 else e.allocate(logits * FP32, "logits")
    del narrow
    slope = e.allocate(logits * FP32, "logits") if ctx.model.logit_softcap is not None else None
    not_covered = e.allocate(tokens)
    places, largest = e.allocate(tokens * INT64), e.allocate(tokens * FP32)
    del largest
    chosen, exponentials = e.allocate(tokens * FP32), e.allocate(tokens * FP32)
    one = e.allocate(FP32)
    del one
    weighed = e.allocate(tokens * FP32)
    total = e.allocate(FP32)
    del weighed, not_covered, places, chosen, exponentials
    if with_gradients:
        grad = wide if ctx.compute_bytes == FP32 else e.allocate(logits * ctx.compute_bytes, "logits")
        del wide, slope
        row = e.allocate(tokens * ctx.shape.hidden * ctx.compute_bytes)
        del row
        weight = e.allocate(head * ctx.compute_bytes)
        del weight, grad
    del total


LOSS_FUNCTIONS = {"plain": plain_loss, "chunked": chunked_loss, "fused": fused_loss}
