"""AdamW as the config says, with weight decay on matrices only."""

from __future__ import annotations

import torch
from torch import nn

from planner.config import OptimizerConfig


def decay_groups(model: nn.Module) -> dict[str, list[str]]:
    """Names of the parameters that decay (two dimensions or more) and of those that do not (biases, norm gains).

    Decay pulls a gain towards 0, where the layer is off, and a bias has no scale to hold back (GPT-2's and nanoGPT's
    split). A tied weight has one name.
    """
    groups: dict[str, list[str]] = {"decay": [], "no_decay": []}
    for name, parameter in model.named_parameters():
        groups["decay" if parameter.dim() >= 2 else "no_decay"].append(name)
    return groups


def make_optimizer(model: nn.Module, config: OptimizerConfig) -> torch.optim.AdamW:
    """AdamW with decoupled weight decay; its rate is 0 until the loop sets the planner's for the step at hand."""
    parameters = dict(model.named_parameters())
    decay = {"decay": config.weight_decay, "no_decay": 0.0}
    groups = [
        {"params": [parameters[name] for name in names], "weight_decay": decay[group]}
        for group, names in decay_groups(model).items()
        if names
    ]
    # fused: one kernel for all tensors and no temporary copy of them, which the memory plan counts on
    return torch.optim.AdamW(groups, lr=0.0, betas=(config.beta1, config.beta2), eps=config.eps, fused=True)


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Give every parameter group the learning rate `rate`."""
    for group in optimizer.param_groups:
        group["lr"] = rate


def rate_in(optimizer: torch.optim.Optimizer) -> float:
    """The learning rate that the optimizer really has, the same in every group."""
    (rate,) = {float(group["lr"]) for group in optimizer.param_groups}
    return rate
