"""Bytes that Megatron-Core's fused kernels save for backward, term by term, on one device.

Korthikanti et al. 2022 (arXiv 2205.05198, section 4.1) count a layer of hidden size h, a heads, s tokens and b
sequences as 34 sbh + 5 a s^2 b: attention 11 sbh and the scores, MLP 19 sbh, two norms 4 sbh, all in two bytes and the
masks of dropout in one. The terms stand here for any inner width, for grouped heads, for gates, and without dropout.
The paper leaves out small terms (statistics of norms, biases), and so do we.
"""

from __future__ import annotations

from planner.formulas.formula import formula
from planner.formulas.itemsize import FP32
from planner.formulas.ops import Num

_TERMS = "Korthikanti et al. 2022 (arXiv 2205.05198), section 4.1"
_NO_RUN = "published terms and totals; no run of these kernels"


@formula(gives="bytes", source=_TERMS + ": 2 sbh each", checked_against=_NO_RUN)
def fused_norm(tokens_per_micro_batch: Num, hidden: Num, compute_bytes: Num) -> Num:
    """A norm: its input."""
    return tokens_per_micro_batch * hidden * compute_bytes


@formula(gives="bytes", source=_TERMS + ": 2 sbh, 2 sbh or 8 sbh", checked_against=_NO_RUN)
def fused_linear(tokens_per_micro_batch: Num, inputs: Num, compute_bytes: Num) -> Num:
    """A linear layer: its input; layers that share an input save it once."""
    return tokens_per_micro_batch * inputs * compute_bytes


@formula(gives="bytes", source=_TERMS + ": Q and K 4 sbh, V 2 sbh", checked_against=_NO_RUN)
def fused_queries_keys_values(tokens_per_micro_batch: Num, query_width: Num, key_width: Num, compute_bytes: Num) -> Num:
    """Queries, keys and values, each once."""
    return tokens_per_micro_batch * (query_width + 2 * key_width) * compute_bytes


@formula(
    gives="bytes", source=_TERMS + ": 2 a s^2 b for the softmax, and with dropout 3 a s^2 b", checked_against=_NO_RUN
)
def fused_scores(tokens_per_micro_batch: Num, seq: Num, heads: Num, compute_bytes: Num, dropped: Num) -> Num:
    """Scores that are stored: the softmax; with dropout also its mask and its output."""
    return tokens_per_micro_batch * seq * heads * (compute_bytes + dropped * (compute_bytes + 1))


@formula(
    gives="bytes", source="Dao et al. 2022 (FlashAttention, arXiv 2205.14135), section 3.1", checked_against=_NO_RUN
)
def fused_flash_statistics(tokens_per_micro_batch: Num, heads: Num) -> Num:
    """Scores that are not stored: one fp32 logarithm per head and token."""
    return tokens_per_micro_batch * heads * FP32


@formula(
    gives="bytes",
    source=_TERMS + ": 8 sbh for GELU; with a gate Transformer Engine's SwiGLU, whose input is gate and up together",
    checked_against=_NO_RUN,
)
def fused_activation(tokens_per_micro_batch: Num, ffn: Num, mlp_matrices: Num, compute_bytes: Num) -> Num:
    """An activation: its input, which is twice as wide with a gate."""
    return tokens_per_micro_batch * ffn * (mlp_matrices - 1) * compute_bytes


@formula(gives="bytes", source=_TERMS + ": sbh each", checked_against=_NO_RUN)
def fused_dropout_mask(tokens_per_micro_batch: Num, hidden: Num) -> Num:
    """Dropout of a sub-layer's output or of the embedding: a mask of one byte per element."""
    return tokens_per_micro_batch * hidden


@formula(
    gives="bytes", source="Korthikanti et al. 2022 (arXiv 2205.05198), section 4.3: 4 sbv", checked_against=_NO_RUN
)
def fused_logits(tokens_per_micro_batch: Num, vocab: Num) -> Num:
    """Cross-entropy: the logits in fp32, which become the softmax and then the gradient in place."""
    return tokens_per_micro_batch * vocab * FP32
