"""The gradient-noise scale: the batch, in tokens, at which noise and signal of the gradient are as large.

McCandlish et al. 2018 (arXiv 1812.06162), appendix A.1: of gradients over a small and a large batch of b and B tokens,

    |G|² = (B |G_B|² - b |G_b|²) / (B - b)        unbiased: the square of the true gradient
    S    = (|G_b|² - |G_B|²) / (1/b - 1/B)        unbiased: the trace of one token's covariance
    B_simple = S / |G|²

The small batch is the first micro-batch of a step and the large one the whole step, so that two norms a step are all
it costs. A quotient of noisy numbers is biased: each is averaged over many steps before they are divided. Tokens of a
sequence are no independent samples, as in the paper: the scale is meant for batches of whole sequences, in tokens.
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
DECAY = 0.99  # of the averages per step: about the last hundred steps count
FEWEST = 20  # steps before a quotient is shown

T = TypeVar("T", float, Tensor)


def estimates(small_sq: T, large_sq: T, small_tokens: int, large_tokens: int) -> tuple[T, T]:
    """Unbiased (|G|², S) of the squared norms of mean gradients over so many tokens."""
    gradient_sq = (large_tokens * large_sq - small_tokens * small_sq) / (large_tokens - small_tokens)
    trace = (small_sq - large_sq) / (1 / small_tokens - 1 / large_tokens)
    return gradient_sq, trace


def why_not(config: RunConfig) -> str:
    """Why there is no noise scale; empty where there is one."""
    if config.training.accumulation >= 2:
        return ""
    return "the gradient-noise scale compares a micro-batch with its step: plan with an accumulation of 2 or more"


class NoiseScale:
    """A `step.Watcher` that measures every step of two micro-batches or more."""

    def __init__(self) -> None:
        self._small_sq: Tensor | None = None
        self._large_sq: Tensor | None = None

    def before_step(self, context: StepContext, step: int) -> None:
        """Nothing is known yet."""

    def after_micro(self, context: StepContext, step: int, micro: int) -> None:
        """The squared norm of the mean gradient over the first micro-batch, and over all of them."""
        times = context.config.training.accumulation
        if micro in (0, times - 1):
            norm = global_norm(gradients_of(context.optimizer).values()) / context.optimizer.scale_tensor
            if micro == 0:
                self._small_sq = (norm * times).square()  # each micro-batch was divided by the whole step's tokens
            else:
                self._large_sq = norm.square()

    def before_update(self, context: StepContext, step: int) -> None:
        """Clipping came after the norms."""

    def after_update(self, context: StepContext, step: int) -> dict[str, Tensor]:
        """Both estimates of this step; they may be negative."""
        assert self._small_sq is not None and self._large_sq is not None, "why_not came first"
        tokens = tokens_per_step(context.config)
        small = tokens // context.config.training.accumulation
        gradient_sq, trace = estimates(self._small_sq, self._large_sq, small, tokens)
        return {GRADIENT: gradient_sq, TRACE: trace}


@dataclass(slots=True)
class SmoothedNoise:
    """Averages of both estimates over the steps so far, the later ones weighing more."""

    gradient_sq: float = 0.0
    trace: float = 0.0
    weight: float = 0.0
    steps: int = 0

    def add(self, row: Mapping[str, object]) -> None:
        """A row of metrics.jsonl; one whose update was left out, or without estimates, changes nothing."""
        gradient_sq, trace = row.get(GRADIENT), row.get(TRACE)
        if row.get("updated") and isinstance(gradient_sq, float) and isinstance(trace, float):
            self.gradient_sq = DECAY * self.gradient_sq + (1 - DECAY) * gradient_sq
            self.trace = DECAY * self.trace + (1 - DECAY) * trace
            self.weight = DECAY * self.weight + (1 - DECAY)
            self.steps += 1

    @property
    def tokens(self) -> float | None:
        """B_simple in tokens; None before enough steps, and where noise hides the gradient altogether."""
        if self.steps < FEWEST or self.gradient_sq <= 0.0 or self.trace <= 0.0:
            return None
        return self.trace / self.gradient_sq


def smoothed_noise(rows: Iterable[Mapping[str, object]]) -> SmoothedNoise:
    """The averages after these rows: a run that continues has those of one that was never interrupted."""
    found = SmoothedNoise()
    for row in rows:
        found.add(row)
    return found
