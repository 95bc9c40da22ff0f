"""Balancing of experts: how often each is chosen, a loss that evens it out, or a bias of the choice.

Of n tokens of a micro-batch, each with k of E experts, f_i is the number of choices of expert i over n (all f sum to k)
and P_i the mean of its routing probability. The loss is, with its coefficient c and L blocks with experts:

    loss-pooled   c E Σ_i f_i P_i, f and P averaged over the blocks first (transformers' load_balancing_loss_func)
    loss-mean     c E / (k L) Σ_blocks Σ_i f_i P_i (MegaBlocks, with which OLMoE was trained, arXiv 2409.02060)
    loss-sum      c E / k Σ_blocks Σ_i f_i P_i (Switch Transformer, arXiv 2101.03961, equation 4; GShard; DeepSeek-V2,
                  which forms it for each sequence where this takes the micro-batch)

f is constant in backward: the gradient of each token's probabilities is one row for the whole block, added where they
are made. "bias" has no loss: after each step the bias of an expert chosen too rarely rises by the rate, that of one
chosen too often falls, and the choice, not the weight, goes by probability plus bias (Wang et al., arXiv 2408.15664).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from planner.config.model import ModelConfig
from planner.counts.shape import has_experts
from reference_trainer.model.losses import IGNORED_TARGET


class ExpertBalance(nn.Module):
    """Loads of all blocks with experts, [L, E] fp32, and what balances them. Only `bias` is part of a checkpoint.

    fractions: f of the running micro-batch. tally: their sum over the step's micro-batches. With a loss also
    probabilities: P; slopes: the gradient of a probability; language, added: sums of the step's two losses.
    """

    fractions: Tensor
    tally: Tensor
    probabilities: Tensor
    slopes: Tensor
    language: Tensor
    added: Tensor
    bias: Tensor

    def __init__(self, model: ModelConfig) -> None:
        super().__init__()
        moe = model.moe
        assert moe is not None
        self.blocks = [block for block in range(model.layers) if has_experts(model, block)]
        self.has_loss, self.has_bias = moe.has_balancing_loss, moe.balancing == "bias"
        self.pooled, self.strength, self.tokens = moe.balancing == "loss-pooled", moe.balancing_strength, 1
        count, pooled = len(self.blocks), moe.balancing == "loss-pooled"
        self.factor = self.strength * moe.experts / (1 if pooled else moe.top_k)
        self.factor /= count if moe.balancing == "loss-mean" else 1
        shape = (count, moe.experts)
        self._keep(shape, "fractions", "tally", *(("probabilities", "slopes") if self.has_loss else ()))
        self._keep((), *(("language", "added") if self.has_loss else ()))
        if self.has_bias:
            self.register_buffer("bias", torch.zeros(shape, dtype=torch.float32))

    def _keep(self, shape: tuple[int, ...], *names: str) -> None:
        for name in names:
            self.register_buffer(name, torch.zeros(shape, dtype=torch.float32), persistent=False)

    # --- one block --------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def observe(self, block: int, probabilities: Tensor, ends: Tensor) -> None:
        """Note the loads of a block: probabilities [n, E]; ends [E]: choices of all experts up to each.

        Recomputation in backward notes the same numbers again.
        """
        self.tokens, fraction = probabilities.shape[0], self.fractions[block]
        fraction.copy_(ends)
        fraction[1:].sub_(ends[:-1])
        fraction.div_(self.tokens)
        if self.has_loss:
            torch.mean(probabilities, 0, out=self.probabilities[block])

    def attach(self, block: int, probabilities: Tensor) -> Tensor:
        """The same probabilities [n, E], whose gradient will have the balancing loss's in it."""
        out: Tensor = _SlopeFunction.apply(probabilities, self, block)  # type: ignore[no-untyped-call]
        return out

    # --- all blocks, at the end of a micro-batch ----------------------------------------------------------------------

    def add(self, total: Tensor, targets: Tensor) -> Tensor:
        """The summed loss with the balancing loss of each counted target; the loss itself where nothing is trained."""
        if not (self.training and torch.is_grad_enabled()):
            return total
        self.tally.add_(self.fractions)
        if not self.has_loss:
            return total
        self.language.add_(total.detach())
        out: Tensor = _LossFunction.apply(total, (targets != IGNORED_TARGET).sum(), self)  # type: ignore[no-untyped-call]
        return out

    def value(self) -> Tensor:
        """The balancing loss of the micro-batch, a scalar."""
        f, p = self.fractions, self.probabilities
        if self.pooled:
            f, p = f.mean(0), p.mean(0)
        return (f * p).sum() * self.factor

    def set_slopes(self, grad: Tensor) -> None:
        """Fill in the gradient of a probability in each block; grad: that of the balancing loss, a scalar."""
        self.slopes.copy_(self.fractions.mean(0) if self.pooled else self.fractions)
        self.slopes.mul_(grad * (self.factor / self.tokens / (len(self.blocks) if self.pooled else 1)))

    # --- a step -----------------------------------------------------------------------------------------------------

    def begin_step(self) -> None:
        """Forget the last step's sums."""
        self.tally.zero_()
        if self.has_loss:
            self.language.zero_()
            self.added.zero_()

    @torch.no_grad()
    def move_bias(self, good: Tensor) -> None:
        """After the update: one step of the bias toward even loads; none if `good`, a scalar bool, is false."""
        if self.has_bias:
            direction = torch.sign(self.tally.mean(1, keepdim=True) - self.tally)
            self.bias.add_(direction * (good * self.strength))

    def metrics(self, valid: int) -> dict[str, Tensor]:
        """Numbers of the step, on the device: the largest load of a block over its mean, and the balancing loss."""
        found = {"expert_load": (self.tally.amax(1) / self.tally.mean(1)).max()}
        return found | ({"balancing_loss": self.added / max(valid, 1)} if self.has_loss else {})


class _SlopeFunction(torch.autograd.Function):
    """The identity on probabilities; backward adds the block's slopes."""

    @staticmethod
    def forward(ctx: Any, probabilities: Tensor, balance: ExpertBalance, block: int) -> Tensor:
        ctx.balance, ctx.block = balance, block
        return probabilities.view_as(probabilities)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        return grads[0] + ctx.balance.slopes[ctx.block], None, None


class _LossFunction(torch.autograd.Function):
    """total + balancing loss * count; its backward runs before any block's and fills in the slopes."""

    @staticmethod
    def forward(ctx: Any, total: Tensor, count: Tensor, balance: ExpertBalance) -> Tensor:
        ctx.balance, ctx.count = balance, count  # a scalar, needed when no block has run backward yet
        value = balance.value() * count
        balance.added.add_(value)
        return total + value

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        ctx.balance.set_slopes(grads[0] * ctx.count)
        return grads[0], None, None
