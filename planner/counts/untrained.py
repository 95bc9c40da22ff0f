"""What a model's architecture has and the reference trainer does not: such a model is planned, and not run."""

from __future__ import annotations

from planner.config.model import ModelConfig
from planner.errors import ConfigError

MEMORY_OF = "its parameters and FLOPs are counted; memory and speed are those of the same model without these parts"


def untrained_parts(model: ModelConfig) -> tuple[str, ...]:
    """Names of the parts that the reference model, and so the simulation of its memory, leaves out; () for most models.

    They are counted in parameters and FLOPs.
    """
    moe = model.moe
    parts = (
        (model.attention_sinks, "attention sinks"),
        (model.attention_chunk is not None, "attention in chunks"),
        (model.qk_norm == "each-head", "norms of queries and keys with a gain for each head"),
        (model.head_bias, "a bias of the output head"),
        (moe is not None and moe.router_bias, "a bias of the router"),
        (moe is not None and moe.expert_biases, "biases of the experts"),
        (model.untrained is not None, model.untrained),
    )
    return tuple(str(name) for there, name in parts if there)


def refuse_untrained(model: ModelConfig) -> None:
    """Raise ConfigError for a model that the reference trainer cannot build."""
    parts = untrained_parts(model)
    if parts:
        raise ConfigError(
            f"the reference trainer does not run {model.name}",
            why=f"it does not have {', '.join(parts)}, and another model would be trained",
            remedy="plan it with gptplan estimate, and train it with a program that has them",
        )
