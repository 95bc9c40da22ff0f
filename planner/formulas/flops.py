"""FLOPs by convention, one multiply-add counted as two. The convention is in each name.

Model FLOPs are what MFU counts: matrix products and attention, forward and backward (3 x forward), nothing
recomputed. Hardware FLOPs (HFU) add what is computed again. Norms, activations, softmax and the embedding
look-up are left out by all of these conventions: they are bandwidth, not FLOPs.
"""

from __future__ import annotations

from planner.formulas.formula import formula
from planner.formulas.ops import Num


@formula(
    gives="training_flops",
    source="Kaplan et al. 2020 (arXiv 2001.08361), section 2.1: C = 6 N D",
    checked_against="none: a rule of thumb; the exact count is shown too",
)
def training_flops_6nd(parameters: Num, tokens: Num) -> Num:
    """6 N D: per token and parameter a multiply-add forward (2) and two backward (4); attention left out.

    N of a mixture of experts are the parameters that one token uses.
    """
    return 6 * parameters * tokens


@formula(gives="flops_per_token", source="Chowdhery et al. 2022 (PaLM, arXiv 2204.02311), appendix B, on exact weights")
def model_flops_per_token(linear_parameters: Num, query_width: Num, value_width: Num, attended_keys: Num) -> Num:
    """6 per weight of a linear layer (head in, embedding look-up out) + 6 (q + v) K: full, not causal, attention.

    6 = 3 (forward, two backward) x 2 FLOPs per multiply-add, for QK^T (width q) and PV (width v); K = L T without
    windows, so that plain heads (q = v) give 12 L q T.
    """
    return 6 * linear_parameters + 6 * (query_width + value_width) * attended_keys


@formula(gives="flops_per_token", source="the same with half the scores: a causal mask leaves T/2 keys per query")
def model_flops_per_token_causal(linear_parameters: Num, query_width: Num, value_width: Num, attended_keys: Num) -> Num:
    """As `model_flops_per_token`, attention halved: the convention of Megatron-LM since 2025."""
    return 6 * linear_parameters + 3 * (query_width + value_width) * attended_keys


@formula(gives="mask_entries", source="counted: query i of 1 … T sees min(i, w) keys, itself among them")
def mask_entries(seq: Num, window: Num) -> Num:
    """Scores of one head that the causal mask leaves in a sequence; T (T + 1) / 2 where the window is the sequence."""
    return window * seq - window * (window - 1) / 2


@formula(gives="forward_flops_per_token", source="a product of an m-vector with an m x n matrix: mn multiply-adds")
def products_forward_flops_per_token(linear_parameters: Num) -> Num:
    """2 per weight that a token meets; its bias is left out."""
    return 2 * linear_parameters


@formula(gives="forward_flops_per_token", source="Chowdhery et al. 2022 (PaLM, arXiv 2204.02311), appendix B")
def scores_forward_flops_per_token(query_width: Num, attended_keys: Num) -> Num:
    """Q K^T of all heads: 2 q K. Grouped heads change nothing: every query head has scores of its own."""
    return 2 * query_width * attended_keys


@formula(gives="forward_flops_per_token", source="Chowdhery et al. 2022 (PaLM, arXiv 2204.02311), appendix B")
def values_forward_flops_per_token(value_width: Num, attended_keys: Num) -> Num:
    """P V of all heads: 2 v K."""
    return 2 * value_width * attended_keys


@formula(gives="flops_per_token", source="a product's backward is two products of its size: for its input, its weight")
def backward_flops_per_token(forward_flops_per_token: Num) -> Num:
    """Twice the forward pass."""
    return 2 * forward_flops_per_token


@formula(gives="flops_per_token", source="Dao 2023 (FlashAttention-2, arXiv 2307.08691): backward is 2.5 x forward")
def flash_recompute_flops_per_token(query_width: Num, attended_keys: Num) -> Num:
    """Flash attention's backward forms the scores again: one more product, 2 q K."""
    return 2 * query_width * attended_keys


@formula(
    gives="flops_per_token",
    source="Chen et al. 2016 (arXiv 1604.06174): each block forward again; torch.utils.checkpoint stops early",
)
def full_checkpointing_flops_per_token(
    recomputed_parameters: Num, query_width: Num, value_width: Num, attended_keys: Num
) -> Num:
    """Checkpointed blocks forward once more but their last product: backward needs its input only. Head, loss: not."""
    return 2 * recomputed_parameters + 2 * (query_width + value_width) * attended_keys


@formula(gives="flops_per_token", source="Korthikanti et al. 2022 (arXiv 2205.05198), section 5: the attention core")
def selective_checkpointing_flops_per_token(query_width: Num, value_width: Num, attended_keys: Num) -> Num:
    """The attention core forward once more: 2 (q + v) K."""
    return 2 * (query_width + value_width) * attended_keys


@formula(gives="flops_per_token", source="definition of hardware FLOPs: model FLOPs and what is computed again")
def hardware_flops_per_token(flops_per_token: Num, recomputed_flops: Num) -> Num:
    """What the hardware really computes per token."""
    return flops_per_token + recomputed_flops


@formula(gives="flops", source="definition")
def total_flops(flops_per_token: Num, tokens: Num) -> Num:
    """FLOPs of `tokens` tokens."""
    return flops_per_token * tokens
