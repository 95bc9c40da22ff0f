"""The MLPs of a block."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from planner.config import TrainingConfig
from planner.model_config import ModelConfig
from planner.shape import GATED
from reference_trainer.layers import make_linear

tanh_gelu = partial(F.gelu, approximate="tanh")


def relu_squared(x: Tensor) -> Tensor:
    """ReLU squared (So et al. 2021); in place as far as it goes, because a product's output is not needed again."""
    return torch.relu_(x).square()


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": tanh_gelu,
    "relu": torch.relu_,
    "relu2": relu_squared,
    "swiglu": F.silu,
    "geglu": tanh_gelu,
}


class MLP(nn.Module):
    """Two matrices with a GELU (GPT-2), ReLU or ReLU squared between them."""

    def __init__(self, model: ModelConfig, training: TrainingConfig, ffn: int) -> None:
        super().__init__()
        self.activation = ACTIVATIONS[model.mlp]
        self.up = make_linear(training, model.hidden, ffn, model.biases == "all")
        self.down = make_linear(training, ffn, model.hidden, model.biases == "all")

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.down(self.activation(self.up(x)))
        return out


class GatedMLP(nn.Module):
    """activation(gate x) * (up x), then down (Shazeer 2020)."""

    def __init__(self, model: ModelConfig, training: TrainingConfig, ffn: int) -> None:
        super().__init__()
        self.activation = ACTIVATIONS[model.mlp]
        self.gate = make_linear(training, model.hidden, ffn, model.biases == "all")
        self.up = make_linear(training, model.hidden, ffn, model.biases == "all")
        self.down = make_linear(training, ffn, model.hidden, model.biases == "all")

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.down(self.activation(self.gate(x)) * self.up(x))
        return out


def make_mlp(model: ModelConfig, training: TrainingConfig, ffn: int) -> nn.Module:
    """The MLP that the config names, of inner width `ffn`."""
    return (GatedMLP if model.mlp in GATED else MLP)(model, training, ffn)
