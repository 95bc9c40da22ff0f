"""Muon with matrices of one shape in a stack: one batched Newton-Schulz iteration for many matrices.

The numbers are torch.optim.Muon's (adjust_lr_fn = "match_rms_adamw"), but for the order of sums in bf16 products.
A stack has at most `STACK_ELEMENTS` elements (planner/counts/stacks.py), or one matrix: its copies are scratch, which
`planner/memory/optimizer_step.py` counts. Nothing here waits for the device.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from planner.counts.stacks import NEWTON_SCHULZ_STEPS
from reference_trainer.optim.lion_adamw import StackedOptimizer, Tensors, present_gradients, store_where

COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # Jordan et al. 2024; torch.optim.Muon's defaults
SMALLEST_NORM = 1e-7  # torch.optim.Muon's eps


class StackedMuon(StackedOptimizer):
    """Momentum, then the nearest orthogonal matrix as update (Jordan et al. 2024); decay decoupled.

    The rate is scaled so that an update is as large as AdamW's: one peak rate serves both (Liu et al. 2025,
    arXiv 2502.16982).
    """

    def initial_state(self, p: Tensor) -> dict[str, Tensor]:
        """A momentum of 0."""
        return {"momentum_buffer": torch.zeros_like(p, dtype=self.state_dtype)}

    def update(self, stack: Tensors, states: Sequence[dict[str, Tensor]], group: dict[str, Any], good: Tensor) -> None:
        """One batched iteration for the stack, then the decay and its step."""
        momenta = [state["momentum_buffer"] for state in states]
        rate = 0.2 * math.sqrt(max(stack[0].shape)) * group["lr"]
        directions = orthogonal(self._nesterov(stack, momenta, 1 - group["momentum"], good))
        made = torch._foreach_mul(stack, 1 - group["lr"] * group["weight_decay"])
        torch._foreach_add_(made, directions.unbind(), alpha=-rate)
        store_where(made, stack, good)

    def _nesterov(self, stack: Tensors, momenta: Tensors, part: float, good: Tensor) -> Tensor:
        """The matrices to orthogonalise, bf16 [n, rows, columns]: `part` of each gradient, the rest momentum."""
        gradients = present_gradients(stack)
        made = torch._foreach_lerp(momenta, gradients, part)
        store_where(made, momenta, good)
        torch._foreach_lerp_(made, gradients, part)
        found = torch.empty((len(stack), *stack[0].shape), dtype=torch.bfloat16, device=stack[0].device)
        torch._foreach_copy_(found.unbind(), made)
        return found


def orthogonal(matrices: Tensor) -> Tensor:
    """Newton-Schulz: each of the bf16 [n, rows, columns] with singular values near 1. The given are overwritten."""
    a, b, c = COEFFICIENTS
    wide = matrices.shape[1] <= matrices.shape[2]
    found = matrices if wide else matrices.mT
    found.div_(torch.linalg.vector_norm(found, dim=(1, 2), keepdim=True).clamp_(min=SMALLEST_NORM))
    other, gram = torch.empty_like(found), found.new_empty(found.shape[0], found.shape[1], found.shape[1])
    polynomial = torch.empty_like(gram)
    for _ in range(NEWTON_SCHULZ_STEPS):
        torch.bmm(found, found.mT, out=gram)
        torch.baddbmm(gram, gram, gram, beta=b, alpha=c, out=polynomial)
        torch.baddbmm(found, polynomial, found, beta=a, out=other)
        found, other = other, found
    return found if wide else found.mT
