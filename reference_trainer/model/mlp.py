"""The MLPs of a block: dense, or a mixture of experts of which each token uses a few."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from planner.config.model import ModelConfig, MoeConfig
from planner.config.run import TrainingConfig
from planner.counts.roles import Role
from planner.counts.shape import GATED
from reference_trainer.model.balancing import ExpertBalance
from reference_trainer.model.grouped import grouped_linear
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

    def forward(self, x: Tensor, ends: Tensor) -> Tensor:
        """x [m, h], sorted by expert, to [m, h]; ends [E] int32: where the rows of each expert end."""
        if self.gate is None:
            return self.linear(self.activation(self.linear(x, self.up, ends)), self.down, ends)
        return self.linear(
            self.activation(self.linear(x, self.gate, ends)) * self.linear(x, self.up, ends), self.down, ends
        )

    def linear(self, x: Tensor, weight: Tensor, ends: Tensor) -> Tensor:
        """Each expert's product, in the type of x."""
        return grouped_linear(x, weight.to(x.dtype), ends)


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
        out = torch.zeros_like(flat, dtype=self.compute).index_add_(
            0, tokens, self.experts(flat.to(self.compute).index_select(0, tokens), ends) * weights
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
        ends = torch.searchsorted(in_order, torch.arange(self.count, device=x.device), right=True, out_int32=True)
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
