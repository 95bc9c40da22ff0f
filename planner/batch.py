"""Batch, tokens and steps."""

from __future__ import annotations

from planner.formula import formula
from planner.ops import Num, floor_div

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


@formula(gives="steps", source="whole steps only: a last partial batch is not trained on")
def whole_steps(tokens: Num, tokens_per_step: Num) -> Num:
    """Optimizer steps in a token budget."""
    return floor_div(tokens, tokens_per_step)


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
