"""Bytes that autograd saves for backward in eager mode, per operator.

Each formula is one operator of one block, or of the embedding, head or loss. A storage that two operators share counts
for the first that saves it. `cast_bytes` is 2 if linear layers cast their fp32 weight to bf16, else 0: the copy lives
from the layer's forward to its backward. Checked against `saved_tensors_hooks` on the reference model, exactly.
"""

from __future__ import annotations

from planner.formulas.formula import formula
from planner.formulas.itemsize import FP32, INT64
from planner.formulas.ops import Num

_SAVED = "autograd's saved tensors, counted with saved_tensors_hooks over the reference model (torch 2.11 to 2.13)"


@formula(gives="bytes", source=_SAVED)
def saved_by_embedding(tokens_per_micro_batch: Num) -> Num:
    """Token embedding: the ids."""
    return INT64 * tokens_per_micro_batch


@formula(gives="bytes", source=_SAVED)
def saved_by_positions(seq: Num, learned_positions: Num) -> Num:
    """Learned positions: one row of indices."""
    return learned_positions * INT64 * seq


@formula(gives="bytes", source=_SAVED)
def saved_by_norm(tokens_per_micro_batch: Num, hidden: Num, residual_bytes: Num, stat_vectors: Num) -> Num:
    """A norm: its input (the residual stream) and its fp32 statistics."""
    return tokens_per_micro_batch * (hidden * residual_bytes + stat_vectors * FP32)


@formula(gives="bytes", source=_SAVED)
def saved_by_linear(tokens_per_micro_batch: Num, inputs: Num, outputs: Num, compute_bytes: Num, cast_bytes: Num) -> Num:
    """A linear layer that is the first to save its input: the input, and the cast copy of its weight."""
    return tokens_per_micro_batch * inputs * compute_bytes + inputs * outputs * cast_bytes


@formula(gives="bytes", source=_SAVED)
def saved_weight_cast(inputs: Num, outputs: Num, cast_bytes: Num) -> Num:
    """A linear layer whose input another operator has saved already: only the cast copy of its weight."""
    return inputs * outputs * cast_bytes


@formula(gives="bytes", source=_SAVED)
def saved_by_attention(
    tokens_per_micro_batch: Num, query_width: Num, key_width: Num, heads: Num, rotary_factor: Num, compute_bytes: Num
) -> Num:
    """Flash attention: q, k, v (one storage), rotated copies of q and k, the output, the fp32 log-sum-exp."""
    per_token = 2 * query_width + 2 * key_width + rotary_factor * (query_width + key_width)
    return tokens_per_micro_batch * (per_token * compute_bytes + heads * FP32)


@formula(gives="bytes", source=_SAVED)
def saved_by_recomputed_attention(
    tokens_per_micro_batch: Num, query_width: Num, key_width: Num, compute_bytes: Num
) -> Num:
    """Attention core under selective checkpointing: only q, k, v (one storage)."""
    return tokens_per_micro_batch * (query_width + 2 * key_width) * compute_bytes


@formula(gives="bytes", source=_SAVED)
def saved_by_gelu(tokens_per_micro_batch: Num, ffn: Num, compute_bytes: Num) -> Num:
    """GELU: its input."""
    return tokens_per_micro_batch * ffn * compute_bytes


@formula(gives="bytes", source=_SAVED)
def saved_by_swiglu(tokens_per_micro_batch: Num, ffn: Num, compute_bytes: Num) -> Num:
    """SwiGLU: gate, silu(gate) and up."""
    return 3 * tokens_per_micro_batch * ffn * compute_bytes


@formula(gives="bytes", source=_SAVED)
def saved_by_checkpointed_block(tokens_per_micro_batch: Num, hidden: Num, residual_bytes: Num) -> Num:
    """A block under full checkpointing: its input."""
    return tokens_per_micro_batch * hidden * residual_bytes


@formula(gives="bytes", source=_SAVED)
def saved_by_loss(tokens_per_micro_batch: Num, vocab: Num) -> Num:
    """Cross-entropy: fp32 log-probabilities, the targets, and the summed weight (one fp32 number)."""
    return tokens_per_micro_batch * (vocab * FP32 + INT64) + FP32
