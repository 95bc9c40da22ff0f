"""What the training loop does beside its steps: evaluate, judge each step, keep checkpoints."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from planner.config.section import Count, Natural, Positive, Section

SPIKE_WINDOW = 128  # steps, as llm.c, OLMo-core and levanter have them
SPIKE_SIGMAS = 6.0  # OLMo-core's and levanter's threshold


class EvaluationConfig(Section):
    """Loss on held-out data. It needs data that has a validation part."""

    every: Count | None = Field(default=None, description="optimizer steps between evaluations; absent: none")
    tokens: Count = Field(default=2**16, description="validation tokens of one evaluation, rounded up to micro-batches")
    patience: Count | None = Field(
        default=None, description="evaluations without a better loss after which training stops; absent: it never does"
    )

    @model_validator(mode="after")
    def _has_evaluations(self) -> EvaluationConfig:
        if self.patience is not None and self.every is None:
            raise ValueError("patience needs evaluations: give every, the optimizer steps between them")
        return self


class GuardConfig(Section):
    """Steps that would harm the weights. One that is not finite is always skipped; what a loss spike does is chosen."""

    on_spike: Literal["warn", "skip", "rollback"] = Field(
        default="warn",
        description="warn; skip its update; rollback past its batches, where the loss spiked",
    )
    spike_sigmas: Positive = Field(
        default=SPIKE_SIGMAS, description="standard deviations above the mean of the last steps that make a spike"
    )
    spike_window: Annotated[int, Field(ge=8, le=4096)] = Field(
        default=SPIKE_WINDOW, description="steps that mean and deviation are taken over; half of them must have been"
    )
    nonfinite_limit: Count = Field(default=3, description="steps in a row that are not finite, after which it stops")
    rollback_skips: Count = Field(default=200, description="steps of data that a rollback passes by")
    rollback_budget: Natural = Field(default=3, description="rollbacks of one run; the next spike stops it")
    rollback_rate: Annotated[float, Field(gt=0.0, le=1.0)] = Field(
        default=1.0, description="factor on the learning rate from a rollback on"
    )


class CheckpointConfig(Section):
    """How many checkpoints stay, and whether training waits for them; how often is `training.checkpoint_every`."""

    keep: Count = Field(default=3, description="newest checkpoints kept; the best by validation loss stays besides")
    keep_every: Count | None = Field(
        default=None, description="checkpoints of steps divisible by it are never deleted; absent: there are none"
    )
    asynchronous: bool = Field(default=False, description="written by a thread while training goes on")
