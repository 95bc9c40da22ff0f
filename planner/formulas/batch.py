"""Batch, tokens and steps; the rate of another batch, the critical batch, the worth of repeated data."""

from __future__ import annotations

from planner.formulas.formula import formula
from planner.formulas.ops import Num, ceil_div, exp, floor_div, maximum, minimum, sqrt

_DEFINITION = "definition"


@formula(gives="sequences_per_step", source=_DEFINITION)
def sequences_per_step(micro_batch: Num, accumulation: Num, data_parallel: Num) -> Num:
    """Effective batch in sequences."""
    return micro_batch * accumulation * data_parallel


@formula(gives="tokens_per_step", source=_DEFINITION)
def tokens_per_step(sequences_per_step: Num, seq: Num) -> Num:
    """Effective batch in tokens."""
    return sequences_per_step * seq


@formula(gives="tokens_per_micro_batch", source=_DEFINITION)
def tokens_per_micro_batch(micro_batch: Num, seq: Num) -> Num:
    """Tokens that one device holds at once."""
    return micro_batch * seq


@formula(gives="steps", source="whole steps only: what is left over is a step too if dropping it would drop over 1 %")
def whole_steps(tokens: Num, tokens_per_step: Num) -> Num:
    """Optimizer steps of a token budget: of a short run rounded up, so that 99 % of the tokens are trained on."""
    return maximum(floor_div(tokens, tokens_per_step), ceil_div(99 * tokens, 100 * tokens_per_step))


@formula(gives="steps", source="definition; a partial step counts as a whole one")
def steps_to_hold(tokens: Num, tokens_per_step: Num) -> Num:
    """Steps of a warm-up or cooldown that is given in tokens."""
    return ceil_div(tokens, tokens_per_step)


@formula(gives="tokens", source=_DEFINITION)
def trained_tokens(steps: Num, tokens_per_step: Num) -> Num:
    """Tokens really trained on."""
    return steps * tokens_per_step


@formula(gives="warmup_tokens", source=_DEFINITION)
def warmup_tokens(warmup_steps: Num, tokens_per_step: Num) -> Num:
    """Tokens seen while the rate rises."""
    return warmup_steps * tokens_per_step


@formula(gives="warmup_share", source=_DEFINITION)
def warmup_share(warmup_steps: Num, steps: Num) -> Num:
    """Warm-up as a share of all steps."""
    return warmup_steps / steps


@formula(gives="epochs", source=_DEFINITION)
def epochs(tokens: Num, dataset_tokens: Num) -> Num:
    """How often every distinct token is seen."""
    return tokens / dataset_tokens


@formula(gives="steps", source="T + 1 tokens give T next-token targets; windows start every `step` tokens")
def sliding_windows(dataset_tokens: Num, seq: Num, step: Num) -> Num:
    """Training windows of `seq` inputs, with a target each, that start every `step` tokens."""
    return floor_div(dataset_tokens - seq - 1, step) + 1


@formula(gives="sequences_per_step", source="non-overlapping windows: every token once as a target")
def whole_sequences(dataset_tokens: Num, seq: Num) -> Num:
    """Non-overlapping sequences of `seq` inputs in a data set."""
    return floor_div(dataset_tokens - 1, seq)


@formula(gives="tokens", source="Muennighoff et al. 2023 (arXiv 2305.16264): effective data, each repeat worth less")
def effective_tokens(tokens: Num, dataset_tokens: Num, repetition_scale: Num) -> Num:
    """New tokens that `tokens` trained on, of `dataset_tokens` distinct ones, are worth; from one epoch on."""
    repeats = tokens / dataset_tokens - 1
    return dataset_tokens * (1 + repetition_scale * (1 - exp(-repeats / repetition_scale)))


@formula(gives="learning_rate", source="Goyal et al. 2017 (arXiv 1706.02677), section 2.1, for SGD")
def linear_scaled_rate(peak_lr: Num, tuned_batch_tokens: Num, tokens_per_step: Num) -> Num:
    """Peak of another batch by the linear rule: as the batch."""
    return peak_lr * tokens_per_step / tuned_batch_tokens


@formula(
    gives="learning_rate",
    source="Krizhevsky 2014 (arXiv 1404.5997); Malladi et al. 2022 (arXiv 2205.10287) for Adam",
)
def sqrt_scaled_rate(peak_lr: Num, tuned_batch_tokens: Num, tokens_per_step: Num) -> Num:
    """Peak of another batch by the square-root rule: as the root of the batch."""
    return peak_lr * sqrt(tokens_per_step / tuned_batch_tokens)


@formula(
    gives="tokens_per_step",
    source="McCandlish et al. 2018 (arXiv 1812.06162), section 2.2: the best rate stops growing there",
)
def batch_of_the_rate(tokens_per_step: Num, critical_batch_tokens: Num) -> Num:
    """The batch that a scaling rule may use: what exceeds the critical batch raises no rate."""
    return minimum(tokens_per_step, critical_batch_tokens)


@formula(gives="critical_batch_tokens", source="Kaplan et al. 2020 (arXiv 2001.08361), eq. 5.3")
def critical_batch(loss: Num, critical_scale: Num, critical_exponent: Num) -> Num:
    """Critical batch of a language model that has reached this loss."""
    return critical_scale / loss ** (1 / critical_exponent)


@formula(gives="loss", source="Kaplan et al. 2020 (arXiv 2001.08361), eq. 1.5")
def loss_of_size_and_data(
    non_embedding_parameters: Num,
    tokens: Num,
    model_scale: Num,
    model_exponent: Num,
    data_scale: Num,
    data_exponent: Num,
) -> Num:
    """Loss of a model of this size trained on this much data, in the convention of Kaplan's data and vocabulary."""
    of_size = (model_scale / non_embedding_parameters) ** (model_exponent / data_exponent)
    return (of_size + data_scale / tokens) ** data_exponent
