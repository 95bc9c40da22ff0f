"""Losses over the vocabulary. Mirror of `reference_trainer/losses.py`."""

from __future__ import annotations

from planner.mirror import operators as op
from planner.mirror.autograd import Autograd, Tensor
from planner.mirror.facts import Facts
from planner.mirror.layers import Linear
from planner.mirror.operators import FP32


def plain_loss(e: Autograd, f: Facts, head: Linear, hidden: Tensor, targets: Tensor) -> Tensor:
    """Head, fp32 logits, cross-entropy: all logits at once."""
    e.label = "head"
    logits = head(e, hidden)
    logits.call_it("logits")
    wide = op.cast(e, logits, FP32)
    del logits
    e.label = "loss"
    wide.call_it("logits")
    if f.model.logit_softcap is not None:
        wide = op.soft_cap(e, wide)
        wide.call_it("logits")
    return op.cross_entropy(e, wide, targets)
