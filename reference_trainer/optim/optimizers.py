"""The optimizers that a config names: PyTorch's own if it has them, with weight decay on matrices only.

| name | made of | where |
|---|---|---|
| adamw | torch.optim.AdamW; own if its moments have another dtype than the weights | fused, foreach, for-loop |
| adamw8bit | bitsandbytes' AdamW8bit | fused |
| lion | own, tensors of one shape together | for-loop |
| adafactor | torch.optim.Adafactor | foreach, for-loop |
| sgd | torch.optim.SGD; its decay is L2, added to the gradient; no state without momentum | fused, foreach, for-loop |
| muon | own, stacked by shape, on the blocks' matrices; torch.optim.AdamW on the rest | AdamW's three |
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from planner.config.run import OptimizerConfig
from planner.counts.groups import Key, key_of, rate_and_decay
from planner.counts.roles import Role
from planner.errors import ConfigError, PlanError
from reference_trainer.device.dtypes import DTYPES
from reference_trainer.optim import lion_adamw as own_optimizers
from reference_trainer.optim.muon import StackedMuon

Groups = list[dict[str, Any]]
OptimizerMaker = Callable[[Groups, OptimizerConfig, torch.dtype | None], torch.optim.Optimizer]


def optimizers_for(
    weights: Mapping[str, Tensor], roles: Mapping[str, Role], config: OptimizerConfig, moments: str | None
) -> list[torch.optim.Optimizer]:
    """One optimizer, or a Muon for the blocks' matrices and an AdamW for the rest; the lr is 0 until the loop sets it.

    weights: the tensors to update, by name, all of one dtype. roles: of at least these names. moments: dtype of the
    state; None: that of the weights.
    Raises ConfigError for an update that no optimizer has, PlanError if a package is missing.
    """
    some = next(iter(weights.values()))
    state_dtype = None if moments is None or DTYPES[moments] == some.dtype else DTYPES[moments]
    if state_dtype is not None and config.name == "adamw" and config.implementation != "for-loop":
        raise ConfigError(
            f"optimizer.implementation = {config.implementation} needs moments of the weights' type, not {moments}",
            why="torch.optim.AdamW has no others; our own has one implementation, which is called for-loop",
            remedy='set implementation = "for-loop", or leave state_dtype out',
        )
    if config.name == "muon":
        matrices = {name: w for name, w in weights.items() if roles[name].has_muon}
        rest = {name: w for name, w in weights.items() if name not in matrices}
        made: list[tuple[OptimizerMaker, Mapping[str, Tensor]]] = [(_muon, matrices), (_adamw, rest)]
        return [make(_groups(some, roles, config), config, None) for make, some in made if some]
    return [MAKERS[config.name](_groups(weights, roles, config), config, state_dtype)]


def _groups(weights: Mapping[str, Tensor], roles: Mapping[str, Role], config: OptimizerConfig) -> Groups:
    """Parameter groups as the planner has them; `rate_factor` multiplies the schedule's learning rate."""
    found: dict[Key, list[Tensor]] = {}
    for name, weight in weights.items():
        found.setdefault(key_of(config, name, roles[name]), []).append(weight)
    made = [(key, *rate_and_decay(config, key)) for key in sorted(found)]
    return [{"params": found[key], "weight_decay": decay, "lr_factor": rate} for key, rate, decay in made]


def _implementation_flags(config: OptimizerConfig) -> dict[str, bool]:
    """PyTorch's flags for an implementation; without them it chooses by the device."""
    return {"fused": config.implementation == "fused", "foreach": config.implementation == "foreach"}


def _adamw(groups: Groups, config: OptimizerConfig, state_dtype: torch.dtype | None) -> torch.optim.Optimizer:
    betas = (config.beta1, config.beta2)
    if state_dtype is not None:
        return own_optimizers.AdamW(groups, state_dtype, lr=0.0, betas=betas, eps=config.eps)
    # fused: one kernel for all tensors and no temporary copy of them
    return torch.optim.AdamW(groups, lr=0.0, betas=betas, eps=config.eps, **_implementation_flags(config))


def _lion(groups: Groups, config: OptimizerConfig, state_dtype: torch.dtype | None) -> torch.optim.Optimizer:
    return own_optimizers.Lion(groups, state_dtype, lr=0.0, betas=(config.beta1, config.beta2))


def _adafactor(groups: Groups, config: OptimizerConfig, _: torch.dtype | None) -> torch.optim.Optimizer:
    return torch.optim.Adafactor(groups, lr=0.0, foreach=config.implementation == "foreach")


def _sgd(groups: Groups, config: OptimizerConfig, _: torch.dtype | None) -> torch.optim.Optimizer:
    return torch.optim.SGD(groups, lr=0.0, momentum=config.beta1, **_implementation_flags(config))


def _muon(groups: Groups, config: OptimizerConfig, _: torch.dtype | None) -> torch.optim.Optimizer:
    return StackedMuon(groups, None, lr=0.0, momentum=config.momentum)


def _adamw8bit(groups: Groups, config: OptimizerConfig, _: torch.dtype | None) -> torch.optim.Optimizer:
    package: Any = bitsandbytes()
    made: torch.optim.Optimizer = package.optim.AdamW8bit(
        groups, lr=0.0, betas=(config.beta1, config.beta2), eps=config.eps
    )
    return made


def bitsandbytes() -> Any:
    """The package of the 8-bit AdamW. Raises PlanError if it is not installed."""
    try:
        return importlib.import_module("bitsandbytes")
    except ImportError:
        raise PlanError(
            "adamw8bit needs the package bitsandbytes, which is not installed",
            why="its kernels and its 8-bit number format are there",
            remedy='pip install "gptplan[8bit]", or --optimizer adamw',
        ) from None


MAKERS: dict[str, OptimizerMaker] = {
    "adamw": _adamw,
    "adamw8bit": _adamw8bit,
    "lion": _lion,
    "adafactor": _adafactor,
    "sgd": _sgd,
}


def has_no_state(optimizer: torch.optim.Optimizer) -> bool:
    """Whether it keeps nothing between two updates: an SGD without momentum."""
    return isinstance(optimizer, torch.optim.SGD) and optimizer.param_groups[0]["momentum"] == 0


def initial_state(optimizer: torch.optim.Optimizer, p: Tensor) -> dict[str, Tensor]:
    """The state of `p` before its first update, as `optimizer` creates it; a checkpoint is loaded into it."""
    if isinstance(optimizer, own_optimizers.StackedOptimizer):
        return optimizer.initial_state(p)
    if has_no_state(optimizer):
        return {}
    if isinstance(optimizer, torch.optim.SGD):
        return {"momentum_buffer": torch.zeros_like(p)}
    if isinstance(optimizer, torch.optim.Adafactor):
        step = {"step": torch.zeros((), dtype=torch.float32)}
        if p.dim() < 2:
            return step | {"variance": torch.zeros_like(p)}
        rows, columns = (*p.shape[:-1], 1), (*p.shape[:-2], 1, p.shape[-1])
        return step | {"row_var": p.new_zeros(rows), "col_var": p.new_zeros(columns)}
    if isinstance(optimizer, torch.optim.AdamW):
        # fused AdamW wants its step count as fp32 beside the parameter, the others read it on the CPU
        device = p.device if optimizer.param_groups[0]["fused"] else "cpu"
        step = {"step": torch.zeros((), dtype=torch.float32, device=device)}
        return step | {"exp_avg": torch.zeros_like(p), "exp_avg_sq": torch.zeros_like(p)}
    return _initial_state_8bit(optimizer, p)


def _initial_state_8bit(optimizer: Any, p: Tensor) -> dict[str, Tensor]:
    """The initial state of bitsandbytes, which identifies a tensor by its place in the groups."""
    for index, group in enumerate(optimizer.param_groups):
        for place, candidate in enumerate(group["params"]):
            if candidate is p:
                optimizer.init_state(group, p, index, place)
    return dict(optimizer.state.pop(p))


def set_lr(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Give every parameter group the learning rate `rate`, times its own factor."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group["lr_factor"]
