"""The MLPs of a block: dense, or a mixture of experts of which each token uses a few."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor

from planner.config.model import ModelConfig, MoeConfig
from planner.config.run import TrainingConfig
from planner.counts.roles import Role
from planner.counts.shape import GATED
from reference_trainer.model.balancing import ExpertBalance
from reference_trainer.model.layers import make_linear
from reference_trainer.model.roles import assign_roles

tanh_gelu = partial(F.gelu, approximate="tanh")


def relu_squared(x: Tensor) -> Tensor:
    """ReLU squared (So et al. 2021)."""
    return torch.relu(x).square()


def gelu_written_out(x: Tensor) -> Tensor:
    """The tanh form of GELU, operator by operator, as GPT-2's ports have it (transformers' NewGELUActivation).

    Each operator saves what its own gradient needs: 5 tensors of x's width, while F.gelu saves 1. Under CUDA's
    autocast the power and all later operators but the half run in fp32.
    """
    return 0.5 * x * (1.0 + torch.tanh(math.sqrt(2.0 / math.pi) * (x + 0.044715 * torch.pow(x, 3.0))))


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": tanh_gelu,
    "gelu-written-out": gelu_written_out,
    "relu": torch.relu,
    "relu2": relu_squared,
    "swiglu": F.silu,
    "geglu": tanh_gelu,
}


class MLP(nn.Module):
    """Two matrices with a GELU (GPT-2), ReLU or ReLU squared between them."""

    def __init__(self, model: ModelConfig, training: TrainingConfig, ffn: int, bias: bool) -> None:
        super().__init__()
        self.activation = ACTIVATIONS[model.mlp]
        self.up = make_linear(training, model.hidden, ffn, bias)
        self.down = make_linear(training, ffn, model.hidden, bias, role=Role.RESIDUAL_MATRIX)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.down(self.activation(self.up(x)))
        return out


class GatedMLP(nn.Module):
    """activation(gate x) * (up x), then down (Shazeer 2020)."""

    def __init__(self, model: ModelConfig, training: TrainingConfig, ffn: int, bias: bool) -> None:
        super().__init__()
        self.activation = ACTIVATIONS[model.mlp]
        self.gate = make_linear(training, model.hidden, ffn, bias)
        self.up = make_linear(training, model.hidden, ffn, bias)
        self.down = make_linear(training, ffn, model.hidden, bias, role=Role.RESIDUAL_MATRIX)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.down(self.activation(self.gate(x)) * self.up(x))
        return out


def make_mlp(model: ModelConfig, training: TrainingConfig, ffn: int, bias: bool) -> nn.Module:
    """The MLP that the config names, of inner width `ffn`."""
    return (GatedMLP if model.mlp in GATED else MLP)(model, training, ffn, bias)


class _GroupedLinearFunction(torch.autograd.Function):
    """x [m, K] times weight [E, K, M]: the first rows[0] rows by the first matrix, the next rows[1] by the second, …"""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, rows: list[int]) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.rows = rows
        out = x.new_empty(x.shape[0], weight.shape[2])
        for part, matrix, into in zip(torch.split(x, rows), weight, torch.split(out, rows), strict=True):
            torch.mm(part, matrix, out=into)
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None]:
        x, weight = ctx.saved_tensors
        to_x, to_weight = torch.empty_like(x), torch.empty_like(weight)
        parts = (torch.split(t, ctx.rows) for t in (x, grads[0], to_x))
        for part, grad, into, matrix, into_matrix in zip(*parts, weight, to_weight, strict=True):
            torch.mm(grad, matrix.t(), out=into)
            torch.mm(part.t(), grad, out=into_matrix)  # of no rows: zeros
        return to_x, to_weight, None


class Experts(nn.Module):
    """The routed experts' MLPs, without biases; each matrix of all experts is one tensor [E, inputs, outputs]."""

    def __init__(self, model: ModelConfig, moe: MoeConfig) -> None:
        super().__init__()
        self.activation = ACTIVATIONS[model.mlp]
        shape = (moe.experts, model.hidden, moe.expert_ffn)
        self.gate = nn.Parameter(torch.empty(shape)) if model.mlp in GATED else None
        self.up = nn.Parameter(torch.empty(shape))
        self.down = nn.Parameter(torch.empty(moe.experts, moe.expert_ffn, model.hidden))
        assign_roles(self, gate=Role.EXPERTS, up=Role.EXPERTS, down=Role.RESIDUAL_EXPERTS)

    def forward(self, x: Tensor, rows: list[int]) -> Tensor:
        """x [m, h], sorted by expert, to [m, h]; rows: how many of them each expert has."""
        if self.gate is None:
            return self.linear(self.activation(self.linear(x, self.up, rows)), self.down, rows)
        return self.linear(
            self.activation(self.linear(x, self.gate, rows)) * self.linear(x, self.up, rows), self.down, rows
        )

    def linear(self, x: Tensor, weight: Tensor, rows: list[int]) -> Tensor:
        """Each expert's product, in the type of x."""
        out: Tensor = _GroupedLinearFunction.apply(x, weight.to(x.dtype), rows)  # type: ignore[no-untyped-call]
        return out


class MoE(nn.Module):
    """Token-choice mixture of experts; no token is dropped (Mixtral, arXiv 2401.04088, section 2.1).

    The router's product is in the compute type, its softmax in fp32; the weights of the chosen experts are divided by
    their sum. Shared experts see every token, weighed by the sigmoid of a gate where there is one. What balances the
    experts is in `balance`, of which this is block number `block`. The experts' products are cast to the compute type
    in every runtime.
    """

    balance: ExpertBalance

    def __init__(
        self, model: ModelConfig, training: TrainingConfig, compute: torch.dtype, balance: ExpertBalance, index: int
    ) -> None:
        super().__init__()
        # the model's, not this module's own: registered here it would be saved once for each block
        object.__setattr__(self, "balance", balance)
        self.block = balance.blocks.index(index)
        moe = model.moe
        assert moe is not None
        self.top_k, self.count, self.compute = moe.top_k, moe.experts, compute
        self.router = make_linear(training, model.hidden, moe.experts)
        self.experts = Experts(model, moe)
        self.shared = make_mlp(model, training, moe.shared_ffn, bias=False) if moe.shared_ffn else None
        self.shared_gate = make_linear(training, model.hidden, 1) if moe.shared_gate else None

    def forward(self, x: Tensor) -> Tensor:
        """x [B, T, h] to [B, T, h]."""
        flat = x.flatten(0, 1)
        weights, tokens, ends = self.route(flat)
        rows = rows_per_expert(ends, tokens.shape[0])
        out = torch.zeros_like(flat, dtype=self.compute).index_add_(
            0, tokens, self.experts(flat.to(self.compute).index_select(0, tokens), rows) * weights
        )
        if self.shared_gate is not None and self.shared is not None:
            out = out + self.shared_gate(flat).sigmoid() * self.shared(flat)
        elif self.shared is not None:
            out = out + self.shared(flat)
        return out.view_as(x)

    def route(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Of n k pairs of token and expert, sorted by expert: weights [n k, 1], tokens [n k]; ends [E] of each expert's
        pairs."""
        probabilities, trains = self.router(x).float().softmax(-1), self.training and torch.is_grad_enabled()
        if trains and self.balance.has_loss:
            probabilities = self.balance.attach(self.block, probabilities)
        weights, chosen = self.choose(probabilities)
        weights = weights / weights.sum(-1, keepdim=True)
        in_order, order = chosen.flatten().sort(stable=True)
        ends = torch.searchsorted(in_order, torch.arange(self.count, device=x.device), right=True)
        del in_order
        if trains:
            self.balance.observe(self.block, probabilities, ends)
        sorted_weights = weights.flatten().index_select(0, order)[:, None].to(self.compute)
        return sorted_weights, order // self.top_k, ends

    def choose(self, probabilities: Tensor) -> tuple[Tensor, Tensor]:
        """Probability and number of the k experts of each token, [n, k] both; a bias counts in the choice alone."""
        if not self.balance.has_bias:
            weights, chosen = probabilities.topk(self.top_k)
            return weights, chosen
        with torch.no_grad():
            chosen = (probabilities + self.balance.bias[self.block]).topk(self.top_k).indices
        return probabilities.gather(-1, chosen), chosen


def rows_per_expert(ends: Tensor, pairs: int) -> list[int]:
    """How often each expert was chosen, read on the host; on fake tensors as evenly as possible.

    ends [E]: how many of the `pairs` choices, sorted by expert, are of experts up to each.
    """
    if ends.is_meta or isinstance(ends, FakeTensor):
        least, more = divmod(pairs, ends.shape[0])
        return [least + (expert < more) for expert in range(ends.shape[0])]
    counted: list[int] = ends.tolist()
    return [end - begin for begin, end in zip([0, *counted], counted, strict=False)]
