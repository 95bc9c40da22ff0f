"""The spike guard: decides on the device whether a step's update is applied, so that no step waits for the host.

The update of a step that is not finite is always skipped. A spike is a loss or gradient norm many standard deviations
above those of the last steps (as in llm.c, OLMo-core and levanter); the config decides what happens then.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from planner.config.loop import GuardConfig
from planner.errors import PlanError
from reference_trainer.step.step_results import StepResult

SMALLEST_SPREAD = 1e-3  # of the mean; if the last losses are almost equal, a change in the third digit is not a spike


@dataclass(frozen=True, slots=True)
class Judgement:
    """0-dimensional tensors on the device. good: apply the update; spike; z-scores of loss and gradient norm."""

    good: Tensor
    spike: Tensor
    loss_sigmas: Tensor
    norm_sigmas: Tensor


class SpikeGuard:
    """Keeps loss and gradient norm of the last finite steps, and judges the next step by them."""

    def __init__(self, config: GuardConfig, device: torch.device) -> None:
        self.config = config
        self.window = torch.zeros(2, config.spike_window, device=device)
        self.count = torch.zeros((), dtype=torch.int64, device=device)
        self._slots = torch.arange(config.spike_window, device=device)

    def judge(self, loss: Tensor, norm: Tensor) -> Judgement:
        """Judge a step. Finite steps enter the window, no further from its mean than a spike is.

        So an outlier does not hide the next one, and a new level is taken for usual after some steps.
        """
        finite = torch.isfinite(loss) & torch.isfinite(norm)
        both = torch.stack([loss.float(), norm.float()])
        size = self.config.spike_window
        filled = self.count.clamp(1, size)
        mean = self.window.sum(1) / filled
        deviations = (self.window - mean[:, None]) * (self._slots < self.count)
        spread = torch.maximum((deviations.square().sum(1) / filled).sqrt(), SMALLEST_SPREAD * mean.abs())
        sigmas = torch.where(self.count >= size // 2, (both - mean) / spread.clamp(min=1e-30), 0.0)
        spike = finite & (sigmas > self.config.spike_sigmas).any()
        current = self._slots == self.count % size
        limit = mean + self.config.spike_sigmas * spread
        entering = torch.where(self.count >= size // 2, torch.minimum(both, limit), both)
        self.window = torch.where(finite & current, entering[:, None], self.window)
        self.count = self.count + finite
        good = finite if self.config.on_spike == "warn" else finite & ~spike
        return Judgement(good, spike, sigmas[0], sigmas[1])

    def tensors(self) -> dict[str, Tensor]:
        """The tensors that a checkpoint saves, by name."""
        return {"guard.window": self.window, "guard.count": self.count}


class NonFiniteCounter:
    """Counts consecutive steps that are not finite, on the host."""

    def __init__(self, limit: int, in_a_row: int = 0) -> None:
        self.limit, self.in_a_row = limit, in_a_row

    def limit_reached(self, steps: Iterable[StepResult]) -> int | None:
        """The step at which these steps, still to be counted, reach the limit; None where they do not."""
        ahead = NonFiniteCounter(self.limit, self.in_a_row)
        for step in steps:
            ahead._count(step.loss, step.grad_norm, step.scale)
            if ahead.in_a_row >= ahead.limit:
                return step.step
        return None

    def _count(self, loss: float, grad_norm: float, scale: float) -> None:
        if math.isfinite(loss) and math.isfinite(grad_norm):
            self.in_a_row = 0
        elif scale <= 1.0 or not math.isfinite(loss):
            self.in_a_row += 1

    def add(self, step: int, loss: float, grad_norm: float, scale: float = 1.0) -> None:
        """Count a step. Raises PlanError when the limit is reached.

        scale: loss scale in backward. Above 1, an infinite gradient with a finite loss is not counted: the scaler is
        searching for the largest scale that fits fp16.
        """
        self._count(loss, grad_norm, scale)
        if self.in_a_row >= self.limit:
            raise PlanError(
                f"training stopped at step {step}: loss or gradient was not finite in {self.in_a_row} steps in a row",
                why="none of these updates was applied, so the weights and the last checkpoint are still finite",
                remedy="plan with a lower --peak-lr, a longer warm-up or a smaller clip norm and check the data; or "
                'set on_spike = "rollback" under [guard] in config.toml and pass the data by with --resume',
            )
