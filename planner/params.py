"""Parameter counts of a dense decoder, exact: every matrix, bias and norm vector."""

from __future__ import annotations

from planner.formula import formula
from planner.ops import Num

_SHAPES = "shapes of the layers, summed; checked against numel() of the reference model and published counts"


@formula(gives="attention_parameters", source=_SHAPES)
def attention_parameters(hidden: Num, query_width: Num, key_width: Num, bias_factor: Num) -> Num:
    """One block's attention: fused q, k, v projection h x (q + 2k), output projection q x h, their biases."""
    return (
        hidden * (query_width + 2 * key_width)
        + query_width * hidden
        + bias_factor * (query_width + 2 * key_width + hidden)
    )


@formula(gives="mlp_parameters", source=_SHAPES)
def mlp_parameters(hidden: Num, ffn: Num, mlp_matrices: Num, bias_factor: Num) -> Num:
    """One block's MLP: m matrices h x f (2 plain, 3 gated), a bias per output where there are biases."""
    return mlp_matrices * hidden * ffn + bias_factor * ((mlp_matrices - 1) * ffn + hidden)


@formula(gives="block_parameters", source=_SHAPES)
def block_parameters(attention_parameters: Num, mlp_parameters: Num, norm_vectors: Num, hidden: Num) -> Num:
    """One block: attention, MLP and two norms."""
    return attention_parameters + mlp_parameters + 2 * norm_vectors * hidden


@formula(gives="embedding_parameters", source=_SHAPES)
def embedding_parameters(vocab: Num, hidden: Num, embedding_tables: Num, context: Num, learned_positions: Num) -> Num:
    """Vocabulary tables (once if tied) and the learned position table."""
    return embedding_tables * vocab * hidden + learned_positions * context * hidden


@formula(gives="parameters", source=_SHAPES)
def total_parameters(
    layers: Num, block_parameters: Num, embedding_parameters: Num, norm_vectors: Num, hidden: Num
) -> Num:
    """All parameters: blocks, tables and the final norm."""
    return layers * block_parameters + embedding_parameters + norm_vectors * hidden


@formula(gives="block_linear_parameters", source=_SHAPES)
def block_linear_parameters(hidden: Num, query_width: Num, key_width: Num, ffn: Num, mlp_matrices: Num) -> Num:
    """Weights of one block's linear layers, without biases."""
    return hidden * (query_width + 2 * key_width) + query_width * hidden + mlp_matrices * hidden * ffn


@formula(gives="linear_parameters", source=_SHAPES)
def linear_parameters(layers: Num, block_linear_parameters: Num, vocab: Num, hidden: Num) -> Num:
    """Weights that multiply activations: all linear layers and the output head; not the embedding look-up."""
    return layers * block_linear_parameters + vocab * hidden
