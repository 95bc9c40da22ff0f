"""Optimizers that PyTorch does not have: Lion, and AdamW whose moments have another dtype than the weights.

Both update tensors of one shape together, by torch's `_foreach` functions, in stacks of bounded size
(planner/counts/stacks.py), and compute in the wider of the two dtypes. `planner/memory/optimizer_step.py` predicts
their memory. New values replace the old ones only if the step is good, which the device decides: no update waits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from planner.counts.stacks import stack_size

Tensors = list[Tensor]


class StackedOptimizer(torch.optim.Optimizer):
    """Creates the state of a whole group at its first update, then updates tensors of one shape together."""

    def __init__(self, groups: Iterable[dict[str, Any]], state_dtype: torch.dtype | None, **defaults: Any) -> None:
        self.state_dtype = state_dtype
        super().__init__(groups, defaults)

    def initial_state(self, p: Tensor) -> dict[str, Tensor]:
        """The state of a tensor before its first update."""
        raise NotImplementedError

    def update(self, stack: Tensors, states: Sequence[dict[str, Tensor]], group: dict[str, Any], good: Tensor) -> None:
        """Change tensors of one shape and their states in place by their gradients, where `good` is true."""
        raise NotImplementedError

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None, good: Tensor | None = None) -> None:  # type: ignore[override]
        """Update every tensor that has a gradient; if `good`, a bool on the device, is false, no bit changes."""
        for group in self.param_groups:
            ready = [p for p in group["params"] if p.grad is not None]
            for p in ready:
                if not self.state[p]:
                    self.state[p] = self.initial_state(p)
            for stack in stacks_of(ready):
                yes = torch.ones((), dtype=torch.bool, device=stack[0].device) if good is None else good
                self.update(stack, [self.state[p] for p in stack], group, yes)


def stacks_of(tensors: Iterable[Tensor]) -> Iterator[Tensors]:
    """Tensors of one shape, in order, in lists as long as `stack_size` says."""
    by_shape: dict[torch.Size, Tensors] = {}
    for tensor in tensors:
        by_shape.setdefault(tensor.shape, []).append(tensor)
    for alike in by_shape.values():
        size = stack_size(alike[0].numel())
        yield from (alike[i : i + size] for i in range(0, len(alike), size))


def present_gradients(stack: Tensors) -> Tensors:
    """Their gradients, which are there."""
    return [p.grad for p in stack if p.grad is not None]


class Lion(StackedOptimizer):
    """The sign of an interpolated momentum, decay decoupled (Chen et al. 2023, arXiv 2302.06675, algorithm 2)."""

    def initial_state(self, p: Tensor) -> dict[str, Tensor]:
        """A momentum of 0."""
        return {"exp_avg": torch.zeros_like(p, dtype=self.state_dtype)}

    def update(self, stack: Tensors, states: Sequence[dict[str, Tensor]], group: dict[str, Any], good: Tensor) -> None:
        """The direction uses momentum with beta1, the stored momentum uses beta2."""
        beta1, beta2 = group["betas"]
        kept = [state["exp_avg"] for state in states]
        wide = torch.promote_types(stack[0].dtype, kept[0].dtype)
        momenta, grads = [t.to(wide) for t in kept], [t.to(wide) for t in present_gradients(stack)]
        made = list(torch._foreach_lerp(momenta, grads, 1 - beta1))
        torch._foreach_sign_(made)
        for new, p in zip(made, stack, strict=True):
            # the rate multiplies inside the sum: by itself it would be rounded to the weights' type
            torch.add(p, new, alpha=-group["lr"], out=new)
        torch._foreach_add_(made, stack, alpha=-group["lr"] * group["weight_decay"])
        store_where(made, stack, good)
        _lerp_into(made, momenta, grads, 1 - beta2)
        del momenta
        store_where(made, kept, good)


class AdamW(StackedOptimizer):
    """AdamW (Loshchilov and Hutter 2019) computed in fp32, with separate dtypes for moments and weights."""

    def initial_state(self, p: Tensor) -> dict[str, Tensor]:
        """Moments of 0 and a step count of 0 on the weights' device, as in the fused implementation."""
        moments = {name: torch.zeros_like(p, dtype=self.state_dtype) for name in ("exp_avg", "exp_avg_sq")}
        return {"step": torch.zeros((), dtype=torch.float32, device=p.device), **moments}

    def update(self, stack: Tensors, states: Sequence[dict[str, Tensor]], group: dict[str, Any], good: Tensor) -> None:
        """One step with bias correction: the first moment as stored, the second as computed."""
        beta1, beta2 = group["betas"]
        steps, first, second = ([state[name] for state in states] for name in ("step", "exp_avg", "exp_avg_sq"))
        torch._foreach_add_(steps, [good.float()] * len(steps))  # of one tensor the host may read the value
        counts = torch.stack(steps).double()  # 1 - beta2^t of one fp32 subtraction would have four digits
        grads = [grad.float() for grad in present_gradients(stack)]
        _first_moments(first, grads, beta1, good)
        roots = [t.to(torch.float32, copy=True) for t in second]
        torch._foreach_mul_(roots, beta2)
        torch._foreach_addcmul_(roots, grads, grads, value=1 - beta2)
        del grads
        store_where(roots, second, good)
        torch._foreach_sqrt_(roots)
        torch._foreach_div_(roots, (1 - beta2**counts).sqrt_().unbind())
        torch._foreach_add_(roots, group["eps"])
        for root, moment in zip(roots, first, strict=True):
            torch.div(moment, root, out=root)
        torch._foreach_div_(roots, (1 - beta1**counts).unbind())
        torch._foreach_mul_(roots, -group["lr"])
        torch._foreach_add_(roots, stack, alpha=1 - group["lr"] * group["weight_decay"])
        store_where(roots, stack, good)


def _lerp_into(made: Tensors, starts: Tensors, ends: Tensors, part: float) -> None:
    """Overwrite each of `made`. A loop of the caller would keep its last start alive."""
    for new, start, end in zip(made, starts, ends, strict=True):
        torch.lerp(start, end, part, out=new)


def _first_moments(kept: Tensors, grads: Tensors, beta: float, good: Tensor) -> None:
    """Update the first moments; their fp32 copies are freed on return."""
    wide = [t.to(torch.float32, copy=True) for t in kept]
    torch._foreach_lerp_(wide, grads, 1 - beta)
    store_where(wide, kept, good)


def store_where(computed: Iterable[Tensor], kept: Iterable[Tensor], good: Tensor) -> None:
    """Round the computed values into the stored tensors if the step is good; else nothing changes, even with NaN."""
    for new, old in zip(computed, kept, strict=True):
        torch.where(good, new.to(old.dtype), old, out=old)
