"""A step of Megatron-Core's fused kernels: the terms of `fused_terms.py`, in the order in which they come and go.

Gradients of weights are added to main gradients by the product itself. Weights have the compute type: nothing is cast.
"""

from __future__ import annotations

from planner.formulas import megatron as terms
from planner.memory.eager.facts import Facts
from planner.memory.stages import Program, Stage


def fused_program(f: Facts) -> Program:
    """The network of one micro-batch."""
    s, w = f.shape, f.weights
    positions = (w * s.position_rows * s.hidden,) if s.learned_positions else ()
    block = _block(f)
    vectors = (w * s.hidden,) * s.norm_vectors
    return Program(
        before=Stage(label="dropout", kept=_mask(f), gradients=(*positions, w * s.vocab * s.hidden)),
        blocks=(block,) * s.layers,
        recomputed=tuple(f.recomputes(i) for i in range(s.layers)),
        norm=Stage(label="norm", kept=(_stream(f),), gradients=vectors),
        head=_head(f),
        stream=_stream(f),
        together=False,
        tied=None,
    )


def _stream(f: Facts) -> int:
    return int(terms.fused_norm(f.tokens, f.shape.hidden, f.compute))


def _mask(f: Facts) -> tuple[int, ...]:
    return (int(terms.fused_dropout_mask(f.tokens, f.shape.hidden)),) if f.training.dropout else ()


def _norm(f: Facts, label: str) -> Stage:
    return Stage(label=label, kept=(_stream(f),), gradients=(f.weights * f.shape.hidden,) * f.shape.norm_vectors)


def _linear(f: Facts, label: str, inputs: int, outputs: int, bias: int) -> Stage:
    kept = int(terms.fused_linear(f.tokens, inputs, f.compute))
    gradients = (f.weights * inputs * outputs, *((f.weights * outputs,) if bias else ()))
    return Stage(label=label, kept=(kept,), given=kept, gradients=gradients)


def _block(f: Facts) -> tuple[Stage, ...]:
    s = f.shape
    wide = s.ffn * (s.mlp_matrices - 1)  # gate and up are one product
    proj = _linear(f, "blocks.attention.proj", s.query_width, s.hidden, s.proj_bias)
    dropout = (Stage(label="blocks.dropout", kept=_mask(f)),) if f.training.dropout else ()
    activation = int(terms.fused_activation(f.tokens, s.ffn, s.mlp_matrices, f.compute))
    return (
        _norm(f, "blocks.attention_norm"),
        _linear(f, "blocks.attention.qkv", s.hidden, s.query_width + 2 * s.key_width, s.qkv_bias),
        Stage(label="blocks.attention", kept=_attention(f), given=_queries(f)),
        proj,
        *dropout,
        _norm(f, "blocks.mlp_norm"),
        _linear(f, "blocks.mlp.up", s.hidden, wide, s.mlp_bias),
        Stage(label="blocks.mlp", kept=(activation,), given=activation),
        _linear(f, "blocks.mlp.down", s.ffn, s.hidden, s.mlp_bias),
        *dropout,
    )


def _queries(f: Facts) -> int:
    s = f.shape
    return int(terms.fused_queries_keys_values(f.tokens, s.query_width, s.key_width, f.compute))


def _attention(f: Facts) -> tuple[int, ...]:
    """Queries, keys, values, and what is kept of the scores: recomputed, nothing."""
    t, heads = f.training, f.shape.heads
    if t.activation_checkpointing == "selective":
        return (_queries(f),)
    if t.attention_kernel == "flash":
        return _queries(f), int(terms.fused_flash_statistics(f.tokens, heads))
    return _queries(f), int(terms.fused_scores(f.tokens, t.seq, heads, f.compute, int(t.dropout > 0)))


def _head(f: Facts) -> Stage:
    """fp32 logits over the narrow ones that the product gives; backward narrows their gradient again."""
    s, n = f.shape, f.tokens
    narrow = n * s.vocab * f.compute
    logits = int(terms.fused_logits(n, s.vocab))
    hidden = int(terms.fused_linear(n, s.hidden, f.compute))
    gradients = () if s.tied else (f.weights * s.vocab * s.hidden,)
    return Stage(
        label="head", kept=(logits, hidden, 0), passing=narrow, given=hidden, narrow=(narrow,), gradients=gradients
    )
