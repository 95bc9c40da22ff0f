"""What a config comes to: the hardware, the recipe, the shape, and how many steps and tokens. Asked once a plan."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from planner import presets
from planner.config.run import CPU, RunConfig
from planner.counts.attention import refuse_wide_attention
from planner.counts.parameters import Parameters, parameters_of
from planner.counts.schedule import schedule_rate
from planner.counts.shape import Shape, shape_of
from planner.formulas import batch
from planner.formulas.recording import whole
from planner.presets import Gpu, Recipe

if TYPE_CHECKING:
    from planner.counts.ranks import Rank


@dataclass(frozen=True, slots=True)
class Resolved:
    """A config and the answers that everything in a plan needs. `resolve` makes it once; it is handed on.

    gpu: None is this machine's processor. nominal_parameters: the number typed, or else the exact count.
    compute_parameters: the N of 6*N*D, the same but for a mixture of experts: those that one token uses.
    requested_tokens: the D of 6*N*D, the tokens asked for or else those of the steps asked for. trained_tokens: those
    of the whole steps. rank: the kind of GPU that this is the run of (`counts/ranks.py`); None: the whole run.
    """

    config: RunConfig
    gpu: Gpu | None
    recipe: Recipe
    shape: Shape
    parameters: Parameters
    nominal_parameters: int
    compute_parameters: int
    sequences_per_step: int
    tokens_per_step: int
    steps: int
    requested_tokens: int
    trained_tokens: int
    rank: Rank | None = None

    def computed_with(self, **sections: dict[str, Any]) -> Resolved:
        """The same training with a step that is computed another way: same model, global batch, recipe and GPU.

        sections: the changed values by section, such as training={"loss": "chunked"}. Nothing is resolved again.
        """
        changed = {name: getattr(self.config, name).model_copy(update=values) for name, values in sections.items()}
        return replace(self, config=self.config.model_copy(update=changed))


def resolve(config: RunConfig) -> Resolved:
    """The answers for a validated config.

    Raises UnknownNameError for a GPU or recipe that is not a preset, ConfigError for a kernel without their types.
    """
    training, parameters = config.training, parameters_of(config.model)
    recipe, gpu = recipe_of(config), gpu_of(config)
    refuse_wide_attention(training, recipe, gpu)
    nominal = config.model.nominal_parameters or parameters.total
    sequences = sequences_per_step(config)
    per_step = whole(batch.tokens_per_step(sequences, training.seq))
    steps = _steps(config, per_step)
    trained = whole(batch.trained_tokens(steps, per_step))
    return Resolved(
        config=config,
        gpu=gpu,
        recipe=recipe,
        shape=shape_of(config.model),
        parameters=parameters,
        nominal_parameters=nominal,
        compute_parameters=nominal if config.model.moe is None else parameters.active,
        sequences_per_step=sequences,
        tokens_per_step=per_step,
        steps=steps,
        requested_tokens=training.tokens if training.tokens is not None else trained,
        trained_tokens=trained,
    )


def gpu_of(config: RunConfig) -> Gpu | None:
    """The card that the config names; None for this machine's processor.

    Raises UnknownNameError for a name that is not a preset.
    """
    return None if config.hardware.gpu == CPU else presets.gpu(config.hardware.gpu)


def saves_in_background(config: RunConfig) -> bool:
    """Whether a thread writes checkpoints: as the config says, else on a GPU.

    A GPU has work queued while its host copies and writes; a processor would share its cores with the writer.
    """
    chosen = config.checkpoints.asynchronous
    return config.hardware.gpu != CPU if chosen is None else chosen


def recipe_of(config: RunConfig) -> Recipe:
    """The numeric recipe that the config names.

    Raises UnknownNameError for a name that is not a preset.
    """
    return presets.recipe(config.training.recipe)


def moments_dtype(config: RunConfig, recipe: Recipe) -> str | None:
    """Type of the optimizer's moments: the one chosen, else the recipe's; None: that of the weights it updates."""
    return config.optimizer.state_dtype or recipe.moments_dtype


def sequences_per_step(config: RunConfig) -> int:
    """Effective batch in sequences."""
    t = config.training
    return whole(batch.sequences_per_step(t.micro_batch, t.accumulation, config.data_parallel))


def tokens_per_step(config: RunConfig) -> int:
    """Effective batch in tokens."""
    return whole(batch.tokens_per_step(sequences_per_step(config), config.training.seq))


def steps_of(config: RunConfig) -> int:
    """Whole optimizer steps of the run."""
    return _steps(config, tokens_per_step(config))


def _steps(config: RunConfig, per_step: int) -> int:
    training = config.training
    if training.steps is not None:
        return training.steps
    assert training.tokens is not None, "the config holds one of tokens and steps"
    return whole(batch.whole_steps(training.tokens, per_step))


def rate_at(config: RunConfig, step: int) -> float:
    """Learning rate of update `step` = 1 … T; 0 is where warm-up starts; past T the last value stays."""
    return schedule_rate(config.schedule, steps_of(config), step)
