"""Optimizers that PyTorch does not have: Lion, and AdamW whose moments have another dtype than the weights.

Both update one tensor after the other and compute in the wider of the two dtypes; `planner/memory/optimizer_step.py`
predicts their memory. New values replace the old ones only if the step is good, which the device decides: no update
waits for it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor


class PerTensorOptimizer(torch.optim.Optimizer):
    """Creates the state of a whole group at its first update, then updates one tensor after the other."""

    def __init__(self, groups: Iterable[dict[str, Any]], state_dtype: torch.dtype | None, **defaults: Any) -> None:
        self.state_dtype = state_dtype
        super().__init__(groups, defaults)

    def initial_state(self, p: Tensor) -> dict[str, Tensor]:
        """The state of a tensor before its first update."""
        raise NotImplementedError

    def update(self, p: Tensor, state: dict[str, Tensor], group: dict[str, Any], good: Tensor) -> None:
        """Change `p` and its state in place by the gradient of `p`, where `good` is true."""
        raise NotImplementedError

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None, good: Tensor | None = None) -> None:  # type: ignore[override]
        """Update every tensor that has a gradient; if `good`, a bool on the device, is false, no bit changes."""
        for group in self.param_groups:
            ready = [p for p in group["params"] if p.grad is not None]
            for p in ready:
                if not self.state[p]:
                    self.state[p] = self.initial_state(p)
            for p in ready:
                yes = torch.ones((), dtype=torch.bool, device=p.device) if good is None else good
                self.update(p, self.state[p], group, yes)


class Lion(PerTensorOptimizer):
    """The sign of an interpolated momentum, decay decoupled (Chen et al. 2023, arXiv 2302.06675, algorithm 2)."""

    def initial_state(self, p: Tensor) -> dict[str, Tensor]:
        """A momentum of 0."""
        return {"exp_avg": torch.zeros_like(p, dtype=self.state_dtype)}

    def update(self, p: Tensor, state: dict[str, Tensor], group: dict[str, Any], good: Tensor) -> None:
        """The direction uses momentum with beta1, the stored momentum uses beta2."""
        assert p.grad is not None
        beta1, beta2 = group["betas"]
        kept = state["exp_avg"]
        wide = torch.promote_types(p.dtype, kept.dtype)
        momentum, grad = kept.to(wide), p.grad.to(wide)
        made = momentum.lerp(grad, 1 - beta1).sign_()
        # the rate multiplies inside the sum: by itself it would be rounded to the weights' type
        torch.add(p, made, alpha=-group["lr"], out=made).add_(p, alpha=-group["lr"] * group["weight_decay"])
        store_where(made, p, good)
        torch.lerp(momentum, grad, 1 - beta2, out=made)
        del momentum
        store_where(made, kept, good)


class AdamW(PerTensorOptimizer):
    """AdamW (Loshchilov and Hutter 2019) computed in fp32, with separate dtypes for moments and weights."""

    def initial_state(self, p: Tensor) -> dict[str, Tensor]:
        """Moments of 0 and a step count of 0 on the weights' device, as in the fused implementation."""
        moments = {name: torch.zeros_like(p, dtype=self.state_dtype) for name in ("exp_avg", "exp_avg_sq")}
        return {"step": torch.zeros((), dtype=torch.float32, device=p.device), **moments}

    def update(self, p: Tensor, state: dict[str, Tensor], group: dict[str, Any], good: Tensor) -> None:
        """One step with bias correction: the first moment as stored, the second as computed."""
        assert p.grad is not None
        beta1, beta2 = group["betas"]
        count = state["step"].add_(good).double()  # 1 - beta2^t of one fp32 subtraction would have four digits
        grad = p.grad.float()
        _first_moment(state["exp_avg"], grad, beta1, good)
        root = state["exp_avg_sq"].to(torch.float32, copy=True).mul_(beta2).addcmul_(grad, grad, value=1 - beta2)
        del grad
        store_where(root, state["exp_avg_sq"], good)
        root.sqrt_().div_((1 - beta2**count).sqrt_()).add_(group["eps"])
        torch.div(state["exp_avg"], root, out=root).div_(1 - beta1**count)
        root.mul_(-group["lr"]).add_(p, alpha=1 - group["lr"] * group["weight_decay"])
        store_where(root, p, good)


def _first_moment(kept: Tensor, grad: Tensor, beta: float, good: Tensor) -> None:
    """Update the first moment; its fp32 copy is freed on return."""
    store_where(kept.to(torch.float32, copy=True).lerp_(grad, 1 - beta), kept, good)


def store_where(computed: Tensor, kept: Tensor, good: Tensor) -> None:
    """Round the computed value into the stored tensor if the step is good; else nothing changes, even with NaN."""
    torch.where(good, computed.to(kept.dtype), kept, out=kept)
