"""An optimizer update that is applied only if a bool on the device is true.

| optimizer | how | waits for the device |
|---|---|---|
| torch.optim.AdamW and SGD, fused | the kernel reads `found_inf`, as it does for a GradScaler | no |
| our own Lion, AdamW and Muon | new values are selected on the device | no |
| AdamW and SGD, foreach and for-loop; Adafactor; bitsandbytes | the host reads the bool, once a step | yes |

The last ones count their updates or read norms on the host, so no value on the device can stop them.
If the step is not good, no bit of weights, moments and counters changes.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from reference_trainer.optim.lion_adamw import StackedOptimizer


def decides_on_host(optimizer: torch.optim.Optimizer) -> bool:
    """Whether the host must know before `optimizer` steps."""
    return not (isinstance(optimizer, StackedOptimizer) or _is_fused(optimizer))


def conditional_step(optimizer: torch.optim.Optimizer, good: Tensor) -> None:
    """Apply the update of `optimizer` if `good`, a scalar bool on its device, is true.

    One that reads the gate must be asked only where it is.
    """
    if isinstance(optimizer, StackedOptimizer):
        optimizer.step(good=good)
    elif _is_fused(optimizer):
        _step_with_found_inf(optimizer, good)
    else:
        optimizer.step()


def _is_fused(optimizer: torch.optim.Optimizer) -> bool:
    known = isinstance(optimizer, torch.optim.AdamW | torch.optim.SGD)
    return known and bool(optimizer.param_groups[0]["fused"])


def _step_with_found_inf(optimizer: Any, good: Tensor) -> None:
    """PyTorch's method (torch.amp.GradScaler.step): `found_inf` is 1 if the gradients must not be used."""
    if isinstance(optimizer, torch.optim.SGD):
        _create_momentum(optimizer)  # its first update would leave an unwritten buffer where it is not good
    optimizer.grad_scale, optimizer.found_inf = None, good.logical_not().float()
    try:
        optimizer.step()
    finally:
        del optimizer.grad_scale, optimizer.found_inf


def _create_momentum(optimizer: torch.optim.Optimizer) -> None:
    """Create the state of the first update; a momentum of 0 gives the same numbers."""
    for group in optimizer.param_groups:
        for p in group["params"]:
            if p.grad is not None and group["momentum"] != 0 and "momentum_buffer" not in optimizer.state[p]:
                optimizer.state[p]["momentum_buffer"] = torch.zeros_like(p)
