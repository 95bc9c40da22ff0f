"""Config to plain numbers: every branch on a choice (gated? tied? which recipe? which schedule?) ends here."""

from __future__ import annotations

from dataclasses import dataclass

from planner import batch, params, presets
from planner.config import ModelConfig, RunConfig, TrainingConfig
from planner.presets import Recipe
from planner.rates import schedule_rate


@dataclass(frozen=True, slots=True)
class Shape:
    """A model as numbers; names and meanings are those of `quantities.py`."""

    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    query_width: int
    key_width: int
    ffn: int
    vocab: int
    context: int
    mlp_matrices: int
    norm_vectors: int
    bias_factor: int
    learned_positions: int
    rotary_factor: int
    stat_vectors: int
    embedding_tables: int

    @property
    def gated(self) -> bool:
        """Whether the MLP has a gate."""
        return self.mlp_matrices == 3

    @property
    def tied(self) -> bool:
        """Whether the head is the embedding table."""
        return self.embedding_tables == 1


def shape_of(model: ModelConfig) -> Shape:
    """The numbers of a model."""
    return Shape(
        layers=model.layers,
        hidden=model.hidden,
        heads=model.heads,
        kv_heads=model.kv_heads,
        head_dim=model.head_dim,
        query_width=model.heads * model.head_dim,
        key_width=model.kv_heads * model.head_dim,
        ffn=model.ffn,
        vocab=model.vocab,
        context=model.context,
        mlp_matrices=3 if model.mlp == "swiglu" else 2,
        norm_vectors=2 if model.norm == "layernorm" and model.biases else 1,
        bias_factor=int(model.biases),
        learned_positions=int(model.position == "learned"),
        rotary_factor=int(model.position == "rotary"),
        stat_vectors=2 if model.norm == "layernorm" else 1,
        embedding_tables=1 if model.tied_embeddings else 2,
    )


@dataclass(frozen=True, slots=True)
class Parameters:
    """Exact parameter counts of a model."""

    total: int
    block: int
    embedding: int
    non_embedding: int
    block_linear: int
    linear: int
    tensors: int


def parameters_of(shape: Shape) -> Parameters:
    """Exact counts; `tensors` is the number of parameter tensors of the reference model."""
    s = shape
    attention = params.attention_parameters(s.hidden, s.query_width, s.key_width, s.bias_factor)
    mlp = params.mlp_parameters(s.hidden, s.ffn, s.mlp_matrices, s.bias_factor)
    block = params.block_parameters(attention, mlp, s.norm_vectors, s.hidden)
    embedding = params.embedding_parameters(s.vocab, s.hidden, s.embedding_tables, s.context, s.learned_positions)
    total = params.total_parameters(s.layers, block, embedding, s.norm_vectors, s.hidden)
    block_linear = params.block_linear_parameters(s.hidden, s.query_width, s.key_width, s.ffn, s.mlp_matrices)
    linear = params.linear_parameters(s.layers, block_linear, s.vocab, s.hidden)
    linear_layers = 2 + s.mlp_matrices
    tensors = s.layers * (linear_layers * (1 + s.bias_factor) + 2 * s.norm_vectors)
    tensors += s.norm_vectors + s.embedding_tables + s.learned_positions
    return Parameters(total, block, embedding, total - embedding, block_linear, linear, tensors)


def nominal_parameters(model: ModelConfig) -> int:
    """The N of 6*N*D and of the 14-byte rule: the number typed, else the exact count."""
    return model.nominal_parameters or parameters_of(shape_of(model)).total


def recipe_of(config: RunConfig) -> Recipe:
    """The numeric recipe that the config names.

    Raises UnknownNameError for a name that is not a preset.
    """
    return presets.recipe(config.training.recipe)


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
