"""Config to plain numbers: every branch on a choice (gated? tied? which recipe? which schedule?) ends here."""

from __future__ import annotations

from planner import presets
from planner.config.run import RunConfig, TrainingConfig
from planner.counts.schedule import schedule_rate
from planner.formulas import batch
from planner.presets import Recipe


def recipe_of(config: RunConfig) -> Recipe:
    """The numeric recipe that the config names.

    Raises UnknownNameError for a name that is not a preset.
    """
    return presets.recipe(config.training.recipe)


def moments_dtype(config: RunConfig) -> str | None:
    """Type of the optimizer's moments: the one chosen, else the recipe's; None: that of the weights it updates."""
    return config.optimizer.state_dtype or recipe_of(config).moments_dtype


def sequences_per_step(config: RunConfig) -> int:
    """Effective batch in sequences."""
    t = config.training
    return int(batch.sequences_per_step(t.micro_batch, t.accumulation, config.hardware.gpus))


def tokens_per_step(config: RunConfig) -> int:
    """Effective batch in tokens."""
    return int(batch.tokens_per_step(sequences_per_step(config), config.training.seq))


def steps_of(config: RunConfig) -> int:
    """Whole optimizer steps of the run."""
    return _steps(config.training, tokens_per_step(config))


def _steps(training: TrainingConfig, per_step: int) -> int:
    if training.steps is not None:
        return training.steps
    assert training.tokens is not None, "the config holds one of tokens and steps"
    return int(batch.whole_steps(training.tokens, per_step))


def requested_tokens(config: RunConfig) -> int:
    """The D of 6*N*D: the tokens asked for, or those of the steps asked for."""
    asked = config.training.tokens
    return asked if asked is not None else int(batch.trained_tokens(steps_of(config), tokens_per_step(config)))


def rate_at(config: RunConfig, step: int) -> float:
    """Learning rate of update `step` = 1 … T; 0 is where warm-up starts; past T the last value stays."""
    return schedule_rate(config.schedule, steps_of(config), step)
