"""Optimizers that PyTorch does not have: Lion, and AdamW whose moments have another type than the weights.

Both go through one tensor after the other and compute in the wider of the two types; `planner/updates.py` counts
what they hold meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor


class _OneByOne(torch.optim.Optimizer):
    """State for a whole group at its first update, then one tensor after the other."""

    def __init__(self, groups: Iterable[dict[str, Any]], state_dtype: torch.dtype | None, **defaults: Any) -> None:
        self.state_dtype = state_dtype
        super().__init__(groups, defaults)

    def fresh(self, p: Tensor) -> dict[str, Tensor]:
        """The state of a tensor before its first update."""
        raise NotImplementedError

    def update(self, p: Tensor, grad: Tensor, state: dict[str, Tensor], group: dict[str, Any]) -> None:
        """Change `p` and its state in place."""
        raise NotImplementedError

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]
        """Update every tensor that has a gradient."""
        for group in self.param_groups:
            ready = [p for p in group["params"] if p.grad is not None]
            for p in ready:
                if not self.state[p]:
                    self.state[p] = self.fresh(p)
            for p in ready:
                self.update(p, p.grad, self.state[p], group)


class Lion(_OneByOne):
    """The sign of an interpolated momentum, decay decoupled (Chen et al. 2023, arXiv 2302.06675, algorithm 2)."""

    def fresh(self, p: Tensor) -> dict[str, Tensor]:
        """A momentum of 0."""
        return {"exp_avg": torch.zeros_like(p, dtype=self.state_dtype)}

    def update(self, p: Tensor, grad: Tensor, state: dict[str, Tensor], group: dict[str, Any]) -> None:
        """Momentum with beta1 for the direction, with beta2 for what is remembered."""
        beta1, beta2 = group["betas"]
        kept = state["exp_avg"]
        wide = torch.promote_types(p.dtype, kept.dtype)
        momentum, grad = kept.to(wide), grad.to(wide)
        direction = momentum.lerp(grad, 1 - beta1).sign_()
        p.mul_(1 - group["lr"] * group["weight_decay"]).add_(direction, alpha=-group["lr"])
        _keep(momentum.lerp_(grad, 1 - beta2), kept)


class AdamW(_OneByOne):
    """AdamW (Loshchilov and Hutter 2019) computed in fp32, with moments and weights each in a type of their own."""

    def fresh(self, p: Tensor) -> dict[str, Tensor]:
        """Moments of 0 and no update counted; the count lives on the CPU, where it is read."""
        moments = {name: torch.zeros_like(p, dtype=self.state_dtype) for name in ("exp_avg", "exp_avg_sq")}
        return {"step": torch.zeros((), dtype=torch.float32), **moments}

    def update(self, p: Tensor, grad: Tensor, state: dict[str, Tensor], group: dict[str, Any]) -> None:
        """One step with both moments corrected; at most two fp32 tensors of its size are alive beside the state."""
        beta1, beta2 = group["betas"]
        state["step"] += 1
        count = state["step"].item()
        first, second = (state[name].float() for name in ("exp_avg", "exp_avg_sq"))
        _moments(first, second, grad, beta1, beta2)
        _keep(first, state["exp_avg"])
        _keep(second, state["exp_avg_sq"])
        copied = second is not state["exp_avg_sq"]
        root = second.sqrt_() if copied else second.sqrt()
        root.div_((1 - beta2**count) ** 0.5).add_(group["eps"])
        weight = p.float()
        weight.mul_(1 - group["lr"] * group["weight_decay"])
        weight.addcdiv_(first, root, value=-group["lr"] / (1 - beta1**count))
        _keep(weight, p)


def _moments(first: Tensor, second: Tensor, grad: Tensor, beta1: float, beta2: float) -> None:
    """Both moments move to the gradient; its fp32 copy ends with this call."""
    grad = grad.float()
    first.lerp_(grad, 1 - beta1)
    second.mul_(beta2).addcmul_(grad, grad, value=1 - beta2)


def _keep(computed: Tensor, kept: Tensor) -> None:
    """Round what was computed into the tensor that stays, where the two are not one."""
    if computed is not kept:
        kept.copy_(computed)
