"""Parameter counts of a decoder, exact: every matrix, bias and norm vector."""

from __future__ import annotations

from planner.formulas.formula import formula
from planner.formulas.ops import Num

_SHAPES = "shapes of the layers, summed; checked against numel() of the reference model and published counts"
_MLA = "DeepSeek-V2 (arXiv 2405.04434), section 2.1, and the shapes of its published checkpoints"


@formula(gives="attention_parameters", source=_SHAPES)
def attention_parameters(hidden: Num, query_width: Num, key_width: Num, qkv_bias: Num, proj_bias: Num) -> Num:
    """One block's attention: q, k, v projection h x (q + 2k), output projection q x h, their biases."""
    return (
        hidden * (query_width + 2 * key_width)
        + query_width * hidden
        + qkv_bias * (query_width + 2 * key_width)
        + proj_bias * hidden
    )


@formula(gives="attention_parameters", source=_MLA)
def latent_attention_parameters(
    latent_query_parameters: Num,
    hidden: Num,
    kv_rank: Num,
    heads: Num,
    nope_dim: Num,
    rope_dim: Num,
    value_dim: Num,
) -> Num:
    """One block's latent attention: queries, down to latent and shared rotary key, its norm, up, output projection."""
    down = hidden * (kv_rank + rope_dim) + kv_rank
    up = kv_rank * heads * (nope_dim + value_dim)
    return latent_query_parameters + down + up + heads * value_dim * hidden


@formula(gives="latent_query_parameters", source=_MLA)
def latent_query_parameters(hidden: Num, query_rank: Num, query_width: Num) -> Num:
    """Queries through a latent: down, its norm, up."""
    return hidden * query_rank + query_rank + query_rank * query_width


@formula(gives="latent_query_parameters", source=_MLA)
def direct_query_parameters(hidden: Num, query_width: Num) -> Num:
    """Queries of latent attention without a latent of their own (DeepSeek-V2-Lite)."""
    return hidden * query_width


@formula(gives="qk_norm_parameters", source=_SHAPES)
def qk_norm_parameters(normed_query: Num, normed_key: Num, norm_vectors: Num) -> Num:
    """Norms of queries and keys: a gain over each head's channels, or over the full widths."""
    return norm_vectors * (normed_query + normed_key)


@formula(gives="mlp_parameters", source=_SHAPES)
def mlp_parameters(hidden: Num, ffn: Num, mlp_matrices: Num, mlp_bias: Num) -> Num:
    """One block's MLP: m matrices h x f (2 plain, 3 gated), a bias per output where there are biases."""
    return mlp_matrices * hidden * ffn + mlp_bias * ((mlp_matrices - 1) * ffn + hidden)


@formula(gives="mlp_parameters", source=_SHAPES)
def moe_parameters(
    hidden: Num, experts: Num, expert_ffn: Num, mlp_matrices: Num, shared_ffn: Num, shared_gate: Num
) -> Num:
    """One block's experts: router, routed experts, shared experts and their gate."""
    routed = experts * mlp_matrices * hidden * expert_ffn
    return hidden * experts + routed + mlp_matrices * hidden * shared_ffn + shared_gate * hidden


@formula(gives="mlp_parameters", source=_SHAPES)
def active_moe_parameters(
    hidden: Num, experts: Num, top_k: Num, expert_ffn: Num, mlp_matrices: Num, shared_ffn: Num, shared_gate: Num
) -> Num:
    """Of one block's experts what one token uses: the whole router, top_k experts, the shared ones."""
    routed = top_k * mlp_matrices * hidden * expert_ffn
    return hidden * experts + routed + mlp_matrices * hidden * shared_ffn + shared_gate * hidden


@formula(gives="router_bias_parameters", source=_SHAPES)
def router_bias_parameters(experts: Num) -> Num:
    """A router's bias: one number per expert."""
    return experts * 1


@formula(gives="expert_bias_parameters", source=_SHAPES)
def expert_bias_parameters(hidden: Num, experts: Num, expert_ffn: Num, mlp_matrices: Num) -> Num:
    """Biases of one block's experts, or of those that a token uses: one per output of each matrix."""
    return experts * ((mlp_matrices - 1) * expert_ffn + hidden)


@formula(gives="attention_sink_parameters", source="gpt-oss model card (arXiv 2508.10925), section 2: attention")
def attention_sink_parameters(heads: Num) -> Num:
    """One block's attention sinks: a learned logit per head."""
    return heads * 1


@formula(gives="head_bias_parameters", source=_SHAPES)
def head_bias_parameters(vocab: Num) -> Num:
    """The output head's bias: one number per token of the vocabulary."""
    return vocab * 1


@formula(gives="block_parameters", source=_SHAPES)
def block_parameters(
    attention_parameters: Num,
    qk_norm_parameters: Num,
    mlp_parameters: Num,
    block_norms: Num,
    norm_vectors: Num,
    hidden: Num,
) -> Num:
    """One block: attention, norms of queries and keys, MLP, and the norms around them."""
    return attention_parameters + qk_norm_parameters + mlp_parameters + block_norms * norm_vectors * hidden


@formula(gives="embedding_parameters", source=_SHAPES)
def embedding_parameters(
    vocab: Num, hidden: Num, embedding_tables: Num, position_rows: Num, learned_positions: Num
) -> Num:
    """Vocabulary tables (once if tied) and the learned position table."""
    return embedding_tables * vocab * hidden + learned_positions * position_rows * hidden


@formula(gives="parameters", source=_SHAPES)
def total_parameters(
    blocks_parameters: Num, embedding_parameters: Num, end_norms: Num, norm_vectors: Num, hidden: Num
) -> Num:
    """All parameters: blocks, tables and the norms outside the blocks (the final one; BLOOM's after the embedding)."""
    return blocks_parameters + embedding_parameters + end_norms * norm_vectors * hidden


@formula(gives="block_linear_parameters", source=_SHAPES)
def block_linear_parameters(hidden: Num, query_width: Num, key_width: Num, ffn: Num, mlp_matrices: Num) -> Num:
    """Weights of one dense block's linear layers, without biases."""
    return hidden * (query_width + 2 * key_width) + query_width * hidden + mlp_matrices * hidden * ffn


@formula(gives="linear_parameters", source=_SHAPES)
def linear_parameters(blocks_linear_parameters: Num, vocab: Num, hidden: Num) -> Num:
    """Weights that multiply activations: all linear layers and the output head; not the embedding look-up."""
    return blocks_linear_parameters + vocab * hidden


@formula(gives="non_embedding_parameters", source="Kaplan et al. 2020 (arXiv 2001.08361), section 2.1: tables left out")
def non_embedding_parameters(parameters: Num, embedding_parameters: Num) -> Num:
    """All parameters but the vocabulary and position tables."""
    return parameters - embedding_parameters
