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
        default=None, description="evaluations without a better loss until training stops; absent: it does not stop"
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
        description="on a loss spike: warn, skip the update, or rollback to a checkpoint and skip its data",
    )
    spike_sigmas: Positive = Field(
        default=SPIKE_SIGMAS,
        description="a spike is more than this many standard deviations above the mean of the window",
    )
    spike_window: Annotated[int, Field(ge=8, le=4096)] = Field(
        default=SPIKE_WINDOW, description="steps of the window; no spike is reported before half of it is filled"
    )
    nonfinite_limit: Count = Field(default=3, description="steps in a row with NaN or infinity until the run stops")
    rollback_skips: Count = Field(default=200, description="steps of data that a rollback skips")
    rollback_budget: Natural = Field(default=3, description="most rollbacks of one run; the next spike stops it")
    rollback_rate: Annotated[float, Field(gt=0.0, le=1.0)] = Field(
        default=1.0, description="factor on the learning rate after a rollback"
    )


class CheckpointConfig(Section):
    """How many checkpoints stay, and whether training waits for them; how often is `training.checkpoint_every`."""

    keep: Count = Field(
        default=3, description="newest checkpoints to keep; the one with the best validation loss is kept too"
    )
    keep_every: Count | None = Field(
        default=None, description="checkpoints of steps divisible by this are never deleted; absent: all may be"
    )
    asynchronous: bool | None = Field(
        default=None, description="a thread writes checkpoints while training continues; absent: on a GPU"
    )
