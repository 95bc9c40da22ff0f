"""The output head and the loss over the vocabulary, in nats, summed over the targets that are not -100.

Three ways to compute the same numbers. "plain" computes all logits at once: 4 bytes of each are saved for backward.
"chunked" computes those of one chunk of tokens at a time, and recomputes them in backward. "fused" computes the
gradients chunk by chunk during forward, so no logits are needed in backward.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import repeat
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from planner.config.run import TrainingConfig

IGNORED_TARGET = -100  # the target of a position that counts in no loss: F.cross_entropy's


def soft_capped(logits: Tensor, cap: float | None) -> Tensor:
    """cap * tanh(logits / cap) (Gemma 2, arXiv 2408.00118); the fp32 logits given are overwritten."""
    return logits if cap is None else logits.div_(cap).tanh_() * cap


class SummedCrossEntropy(nn.Module):
    """Cross-entropy of fp32 logits [..., V] and targets [...]; all logits at once."""

    def __init__(self, softcap: float | None) -> None:
        super().__init__()
        self.softcap = softcap

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        capped = soft_capped(logits, self.softcap).flatten(0, -2)
        total: Tensor = F.cross_entropy(capped, targets.flatten(), reduction="sum", ignore_index=IGNORED_TARGET)
        return total


class ChunkedCrossEntropy(nn.Module):
    """Head and cross-entropy chunk by chunk under checkpointing: no chunk's logits survive its forward."""

    def __init__(self, softcap: float | None, chunks: int) -> None:
        super().__init__()
        self.softcap, self.chunks = softcap, chunks

    def forward(self, hidden: Tensor, head: nn.Linear, targets: Tensor) -> Tensor:
        """hidden [B, T, h], targets [B, T]; chunks are equal in tokens, the last one may be smaller."""
        total = hidden.new_zeros((), dtype=torch.float32)
        parts = zip(hidden.flatten(0, 1).chunk(self.chunks), targets.flatten().chunk(self.chunks), strict=True)
        for part, wanted in parts:
            total = total + checkpoint(self.chunk, part, head, wanted, use_reentrant=False, preserve_rng_state=False)
        return total

    def chunk(self, hidden: Tensor, head: nn.Linear, targets: Tensor) -> Tensor:
        """Summed loss of one chunk of tokens; the head casts its weight per chunk, so gradients add up in fp32."""
        return F.cross_entropy(
            soft_capped(head(hidden).float(), self.softcap), targets, reduction="sum", ignore_index=IGNORED_TARGET
        )


class FusedCrossEntropy(nn.Module):
    """Head and cross-entropy chunk by chunk; computes the gradients of hidden states and head weight in forward.

    compute: type of the products' operands. The head's gradient is summed in its own type, its size V h.
    """

    def __init__(self, softcap: float | None, chunks: int, compute: torch.dtype) -> None:
        super().__init__()
        self.softcap, self.chunks, self.compute = softcap, chunks, compute

    def forward(self, hidden: Tensor, head: nn.Linear, targets: Tensor) -> Tensor:
        """hidden [B, T, h], targets [B, T]."""
        wanted = torch.is_grad_enabled() and hidden.requires_grad
        flat, options = hidden.flatten(0, 1), (self.softcap, self.chunks, self.compute, wanted)
        total: Tensor = _FusedFunction.apply(flat, head.weight, targets.flatten(), options)  # type: ignore[no-untyped-call]
        return total


class _FusedFunction(torch.autograd.Function):
    """Summed loss; saves the two gradients, which backward scales in place, so it can be called once."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor, options: tuple[Any, ...]) -> Tensor:
        softcap, chunks, compute, wanted = options
        total = torch.zeros((), device=hidden.device)
        to_hidden, to_weight = (torch.empty_like(hidden), torch.zeros_like(weight)) if wanted else (None, None)
        narrow = weight.to(compute)
        rows: Iterable[Tensor | None] = repeat(None) if to_hidden is None else to_hidden.chunk(chunks)
        for part, chosen, row in zip(hidden.to(compute).chunk(chunks), targets.chunk(chunks), rows, strict=False):
            total += _chunk_loss(part, narrow, chosen, softcap, (row, to_weight))
        ctx.save_for_backward(to_hidden, to_weight)
        return total

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None, None]:
        to_hidden, to_weight = ctx.saved_tensors
        return to_hidden.mul_(grads[0]), to_weight.mul_(grads[0]), None, None


def _chunk_loss(
    part: Tensor, weight: Tensor, targets: Tensor, softcap: float | None, into: tuple[Tensor | None, Tensor | None]
) -> Tensor:
    """Summed loss of one chunk of hidden states; `into`: rows of their gradient, and the head's, added to."""
    logits = torch.mm(part, weight.t()).float()
    slope = _cap_in_place(logits, softcap)
    total = _loss_to_gradient(logits, targets)
    to_hidden, to_weight = into
    if to_hidden is not None and to_weight is not None:
        grad = (logits if slope is None else logits.mul_(slope)).to(part.dtype)
        del logits, slope
        to_hidden.copy_(torch.mm(grad, weight))
        to_weight.add_(torch.mm(grad.t(), part))
    return total


def _cap_in_place(logits: Tensor, cap: float | None) -> Tensor | None:
    """Soft-cap the logits; return the derivative of the cap, 1 - tanh^2, if there is a cap."""
    if cap is None:
        return None
    slope = logits.div_(cap).tanh_().square().neg_().add_(1)
    logits.mul_(cap)
    return slope


def _loss_to_gradient(logits: Tensor, targets: Tensor) -> Tensor:
    """Summed cross-entropy of one chunk; the logits become its gradient, softmax less the target's one.

    In place, because `logsumexp` allocates an internal tensor as large as the logits, which no operator tracker sees.
    """
    counted = (targets != IGNORED_TARGET)[:, None]
    places = targets.clamp(min=0)[:, None]
    chosen = logits.sub_(logits.amax(1, keepdim=True)).gather(1, places)
    total = logits.exp_().sum(1, keepdim=True)
    logits.div_(total).scatter_add_(1, places, logits.new_full((1, 1), -1.0).expand_as(chosen))
    logits.mul_(counted)
    return (total.log_().sub_(chosen) * counted).sum()


def make_loss(training: TrainingConfig, softcap: float | None, compute: torch.dtype) -> nn.Module:
    """The loss that the config names."""
    if training.loss == "chunked":
        return ChunkedCrossEntropy(softcap, training.loss_chunks)
    if training.loss == "fused":
        return FusedCrossEntropy(softcap, training.loss_chunks, compute)
    return SummedCrossEntropy(softcap)
