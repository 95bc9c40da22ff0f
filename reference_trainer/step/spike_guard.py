"""Whether a step's gradients may reach the weights: judged on the device, so that no step waits for the host.

A step that is not finite is always left out. A loss spike is a loss or a gradient norm many standard deviations above
those of the last steps (llm.c, OLMo-core and levanter judge alike); what it does is the config's choice.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from planner.config.loop import GuardConfig
from planner.errors import PlanError

SMALLEST_SPREAD = 1e-3  # of the mean: where the last losses are all but equal, a change in the third digit is no spike


@dataclass(frozen=True, slots=True)
class Judgement:
    """On the device, without a shape: whether the update is applied, whether it is a spike, both numbers' z-scores."""

    good: Tensor
    spike: Tensor
    loss_sigmas: Tensor
    norm_sigmas: Tensor


class SpikeGuard:
    """Loss and gradient norm of the last finite steps, and the judgement of the next."""

    def __init__(self, config: GuardConfig, device: torch.device) -> None:
        self.config = config
        self.window = torch.zeros(2, config.spike_window, device=device)
        self.count = torch.zeros((), dtype=torch.int64, device=device)
        self._places = torch.arange(config.spike_window, device=device)

    def judge(self, loss: Tensor, norm: Tensor) -> Judgement:
        """The verdict on a step, which enters the window if it is finite, spike or not: a new level is one spike."""
        finite = torch.isfinite(loss) & torch.isfinite(norm)
        both = torch.stack([loss.float(), norm.float()])
        size = self.config.spike_window
        seen = self.count.clamp(1, size)
        mean = self.window.sum(1) / seen
        around = (self.window - mean[:, None]) * (self._places < self.count)
        spread = torch.maximum((around.square().sum(1) / seen).sqrt(), SMALLEST_SPREAD * mean.abs())
        sigmas = torch.where(self.count >= size // 2, (both - mean) / spread.clamp(min=1e-30), 0.0)
        spike = finite & (sigmas > self.config.spike_sigmas).any()
        here = self._places == self.count % size
        self.window = torch.where(finite & here, both[:, None], self.window)
        self.count = self.count + finite
        good = finite if self.config.on_spike == "warn" else finite & ~spike
        return Judgement(good, spike, sigmas[0], sigmas[1])

    def tensors(self) -> dict[str, Tensor]:
        """What a checkpoint keeps of it."""
        return {"guard.window": self.window, "guard.count": self.count}


class NonFiniteCounter:
    """Counts steps in a row that were not finite, on the host, as they are read."""

    def __init__(self, limit: int, in_a_row: int = 0) -> None:
        self.limit, self.in_a_row = limit, in_a_row

    def add(self, step: int, loss: float, grad_norm: float, scale: float = 1.0) -> None:
        """Raises PlanError when the limit is reached.

        scale: factor on the loss in backward. Above 1 an infinite gradient of a finite loss is the scaler's search for
        the largest factor that fits fp16, and no sign of a diverged model.
        """
        if math.isfinite(loss) and math.isfinite(grad_norm):
            self.in_a_row = 0
        elif scale <= 1.0 or not math.isfinite(loss):
            self.in_a_row += 1
        if self.in_a_row >= self.limit:
            raise PlanError(
                f"training stopped at step {step}: loss or gradient not finite {self.in_a_row} steps in a row",
                why="none of these updates was applied; the weights and the last checkpoint are finite",
                remedy="plan with a lower peak rate, a longer warm-up or a smaller clip norm, and look at the data",
            )
