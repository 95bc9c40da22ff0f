"""The output head and the loss over the vocabulary. Mirror of `reference_trainer/model/losses.py`."""

from __future__ import annotations

from planner.memory.eager import operators as op
from planner.memory.eager.autograd import Autograd
from planner.memory.eager.facts import Facts
from planner.memory.eager.graph import Gradient, Saved, Tensor
from planner.memory.eager.layers import Linear
from planner.memory.eager.operators import FP32


def plain_loss(e: Autograd, f: Facts, head: Linear, hidden: Tensor, targets: Tensor) -> Tensor:
    """Head, fp32 logits, cross-entropy: all logits at once."""
    e.label = "head"
    logits = head(e, hidden)
    logits.call_it("logits")
    wide = op.cast(e, logits, FP32)
    if f.training.returns_logits and e.recording:
        e.handed_out = logits.storage
    del logits
    e.label = "loss"
    wide.call_it("logits")
    if f.model.logit_softcap is not None:
        wide = op.soft_cap(e, wide)
        wide.call_it("logits")
    return op.cross_entropy(e, wide, targets)


def chunked_loss(e: Autograd, f: Facts, head: Linear, hidden: Tensor, targets: Tensor) -> Tensor:
    """Head and cross-entropy of one chunk of tokens after the other, each under checkpointing."""
    e.label = "loss"
    total = e.new(1, FP32)
    counts = chunk_sizes(f)
    parts = op.split(e, hidden, tuple(n * f.shape.hidden for n in counts))
    for part, tokens in zip(parts, counts, strict=True):
        wanted = targets.part(tokens, None)
        loss = e.checkpoint("loss", lambda e, x, y: plain_loss(e, f, head, x, y), part, wanted)
        total = op.add(e, total, loss)
        del loss
    return total


def chunk_sizes(f: Facts) -> tuple[int, ...]:
    """Tokens of each chunk: equal but for the last (torch.chunk)."""
    size = -(-f.tokens // f.training.loss_chunks)
    whole, rest = divmod(f.tokens, size)
    return (size,) * whole + ((rest,) if rest else ())


def fused_loss(e: Autograd, f: Facts, head: Linear, hidden: Tensor, targets: Tensor) -> Tensor:
    """The gradients of hidden states and head weight are made in forward, chunk by chunk, and saved."""
    e.label = "loss"
    total = e.new(1, FP32)
    node = e.node((hidden, head.weight), _made_in_forward)
    gradients: list[Tensor] = []
    if node is not None:
        gradients = [e.new(hidden.count, hidden.item), e.new(head.weight.count, head.weight.item)]
    narrow = None if head.weight.item == f.compute else e.new(head.weight.count, f.compute)
    narrow_hidden = None if hidden.item == f.compute else e.new(hidden.count, f.compute)
    for tokens in chunk_sizes(f):
        _chunk_gradients(e, f, tokens, head.weight.count, bool(gradients))
    del narrow, narrow_hidden
    e.save(node, *gradients)
    total.node = node
    return total


def _made_in_forward(grads: list[Gradient], saved: Saved) -> list[Gradient]:
    return list(saved)


def _chunk_gradients(e: Autograd, f: Facts, tokens: int, head: int, wanted: bool) -> None:
    """Loss of one chunk, its logits turned into their gradient in place, and what that gives."""
    logits = tokens * f.shape.vocab
    narrow = e.bytes(logits * f.compute, "logits")
    wide = narrow if f.compute == FP32 else e.bytes(logits * FP32, "logits")
    del narrow
    slope = e.bytes(logits * FP32, "logits") if f.model.logit_softcap is not None else None
    counted = e.bytes(tokens)
    places, chosen, log_sum = e.bytes(tokens * op.INDEX), e.bytes(tokens * FP32), e.bytes(tokens * FP32)
    one = e.bytes(FP32)
    del one
    weighed = e.bytes(tokens * FP32)
    total = e.bytes(FP32)
    del weighed, counted, places, chosen, log_sum
    if wanted:
        grad = wide if f.compute == FP32 else e.bytes(logits * f.compute, "logits")
        del wide, slope
        row = e.bytes(tokens * f.shape.hidden * f.compute)
        del row
        weight = e.bytes(head * f.compute)
        del weight, grad
    del total


LOSSES = {"plain": plain_loss, "chunked": chunked_loss, "fused": fused_loss}
