"""The gradient-noise scale: the batch size, in tokens, at which noise and signal of the gradient are equal.

McCandlish et al. 2018 (arXiv 1812.06162), appendix A.1: from gradients over a small and a large batch, b and B tokens,

    |G|² = (B |G_B|² - b |G_b|²) / (B - b)        unbiased: the square of the true gradient
    S    = (|G_b|² - |G_B|²) / (1/b - 1/B)        unbiased: the trace of one token's covariance
    B_simple = S / |G|²

The small batch is the first micro-batch of a step and the large batch is the whole step, so it costs two norms per
step. The quotient of noisy numbers is biased, so both are averaged over many steps before the division. As in the
paper, tokens of one sequence are not independent: use the scale for batches of complete sequences.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from torch import Tensor

from planner.config.run import RunConfig
from planner.counts.run import tokens_per_step
from reference_trainer.metrics.layer_statistics import global_norm, gradients_of
from reference_trainer.step.step import StepContext

GRADIENT, TRACE, SCALE = "noise_gradient_sq", "noise_trace", "noise_scale_tokens"
DECAY = 0.99  # per step: the averages cover about the last 100 steps
FEWEST = 20  # steps before a value is reported

T = TypeVar("T", float, Tensor)


def estimates(small_sq: T, large_sq: T, small_tokens: int, large_tokens: int) -> tuple[T, T]:
    """Unbiased (|G|², S) of the squared norms of mean gradients over so many tokens."""
    gradient_sq = (large_tokens * large_sq - small_tokens * small_sq) / (large_tokens - small_tokens)
    trace = (small_sq - large_sq) / (1 / small_tokens - 1 / large_tokens)
    return gradient_sq, trace


def why_not(config: RunConfig) -> str:
    """Why there is no noise scale; empty if there is one."""
    if config.training.accumulation >= 2:
        return ""
    return "no gradient-noise scale: it needs two micro-batches per step; plan with an accumulation of 2 or more"


class NoiseScale:
    """A `step.Watcher` that measures every step. Needs two or more micro-batches per step."""

    def __init__(self) -> None:
        self._small_sq: Tensor | None = None
        self._large_sq: Tensor | None = None

    def before_step(self, context: StepContext, step: int) -> None:
        """Nothing to do."""

    def after_micro(self, context: StepContext, step: int, micro: int) -> None:
        """Measure the squared norm of the mean gradient after the first micro-batch and after the last."""
        times = context.config.training.accumulation
        if micro in (0, times - 1):
            norm = global_norm(gradients_of(context.optimizer).values()) / context.optimizer.scale_tensor
            if micro == 0:
                self._small_sq = (norm * times).square()  # the loss was divided by the tokens of the whole step
            else:
                self._large_sq = norm.square()

    def before_update(self, context: StepContext, step: int) -> None:
        """Nothing to do: the norms are measured before clipping."""

    def after_update(self, context: StepContext, step: int) -> dict[str, Tensor]:
        """Both estimates for this step; they may be negative."""
        assert self._small_sq is not None and self._large_sq is not None, "why_not was checked before"
        tokens = tokens_per_step(context.config)
        small = tokens // context.config.training.accumulation
        gradient_sq, trace = estimates(self._small_sq, self._large_sq, small, tokens)
        return {GRADIENT: gradient_sq, TRACE: trace}


@dataclass(slots=True)
class SmoothedNoise:
    """Exponential moving averages of both estimates."""

    gradient_sq: float = 0.0
    trace: float = 0.0
    weight: float = 0.0
    steps: int = 0

    def add(self, row: Mapping[str, object]) -> None:
        """Add a row of metrics.jsonl. A row without estimates, or whose update was skipped, changes nothing."""
        gradient_sq, trace = row.get(GRADIENT), row.get(TRACE)
        if row.get("updated") and isinstance(gradient_sq, float) and isinstance(trace, float):
            self.gradient_sq = DECAY * self.gradient_sq + (1 - DECAY) * gradient_sq
            self.trace = DECAY * self.trace + (1 - DECAY) * trace
            self.weight = DECAY * self.weight + (1 - DECAY)
            self.steps += 1

    @property
    def tokens(self) -> float | None:
        """B_simple in tokens; None after too few steps, or if the estimates are not positive."""
        if self.steps < FEWEST or self.gradient_sq <= 0.0 or self.trace <= 0.0:
            return None
        return self.trace / self.gradient_sq


def smoothed_noise(rows: Iterable[Mapping[str, object]]) -> SmoothedNoise:
    """The averages after these rows, so that a resumed run has the same as an uninterrupted one."""
    noise = SmoothedNoise()
    for row in rows:
        noise.add(row)
    return noise
