"""A step of Megatron-Core's fused kernels: the terms of `fused_terms.py`, in the order in which they come and go.

Gradients of weights are added to main gradients by the product itself. Weights have the compute type: nothing is cast.
"""

from __future__ import annotations

from planner.formulas import megatron as terms
from planner.memory.eager.context import SimulationContext
from planner.memory.stages import Program, Stage


def fused_program(ctx: SimulationContext) -> Program:
    """The network of one micro-batch."""
    s, w = ctx.shape, ctx.weight_bytes
    positions = (w * s.position_rows * s.hidden,) if s.learned_positions else ()
    block = _block(ctx)
    vectors = (w * s.hidden,) * s.norm_vectors
    return Program(
        before=Stage(label="dropout", kept=_mask(ctx), gradients=(*positions, w * s.vocab * s.hidden)),
        blocks=(block,) * s.layers,
        recomputed=tuple(ctx.recomputes(i) for i in range(s.layers)),
        norm=Stage(label="norm", kept=(_stream(ctx),), gradients=vectors),
        head=_head(ctx),
        stream=_stream(ctx),
        together=False,
        tied=None,
    )


def _stream(ctx: SimulationContext) -> int:
    return int(terms.fused_norm(ctx.tokens, ctx.shape.hidden, ctx.compute_bytes))


def _mask(ctx: SimulationContext) -> tuple[int, ...]:
    return (int(terms.fused_dropout_mask(ctx.tokens, ctx.shape.hidden)),) if ctx.training.dropout else ()


def _norm(ctx: SimulationContext, label: str) -> Stage:
    return Stage(
        label=label, kept=(_stream(ctx),), gradients=(ctx.weight_bytes * ctx.shape.hidden,) * ctx.shape.norm_vectors
    )


def _linear(ctx: SimulationContext, label: str, inputs: int, outputs: int, bias: int) -> Stage:
    kept = int(terms.fused_linear(ctx.tokens, inputs, ctx.compute_bytes))
    gradients = (ctx.weight_bytes * inputs * outputs, *((ctx.weight_bytes * outputs,) if bias else ()))
    return Stage(label=label, kept=(kept,), given=kept, gradients=gradients)


def _block(ctx: SimulationContext) -> tuple[Stage, ...]:
    s = ctx.shape
    wide = s.ffn * (s.mlp_matrices - 1)  # gate and up are one product
    proj = _linear(ctx, "blocks.attention.proj", s.query_width, s.hidden, s.proj_bias)
    dropout = (Stage(label="blocks.dropout", kept=_mask(ctx)),) if ctx.training.dropout else ()
    activation = int(terms.fused_activation(ctx.tokens, s.ffn, s.mlp_matrices, ctx.compute_bytes))
    return (
        _norm(ctx, "blocks.attention_norm"),
        _linear(ctx, "blocks.attention.qkv", s.hidden, s.query_width + 2 * s.key_width, s.qkv_bias),
        Stage(label="blocks.attention", kept=_attention(ctx), given=_queries(ctx)),
        proj,
        *dropout,
        _norm(ctx, "blocks.mlp_norm"),
        _linear(ctx, "blocks.mlp.up", s.hidden, wide, s.mlp_bias),
        Stage(label="blocks.mlp", kept=(activation,), given=activation),
        _linear(ctx, "blocks.mlp.down", s.ffn, s.hidden, s.mlp_bias),
        *dropout,
    )


def _queries(ctx: SimulationContext) -> int:
    s = ctx.shape
    return int(terms.fused_queries_keys_values(ctx.tokens, s.query_width, s.key_width, ctx.compute_bytes))


def _attention(ctx: SimulationContext) -> tuple[int, ...]:
    """Queries, keys, values, and what is kept of the scores: recomputed, nothing."""
    t, heads = ctx.training, ctx.shape.heads
    if t.activation_checkpointing == "selective":
        return (_queries(ctx),)
    if t.attention_kernel == "flash":
        return _queries(ctx), int(terms.fused_flash_statistics(ctx.tokens, heads))
    return _queries(ctx), int(terms.fused_scores(ctx.tokens, t.seq, heads, ctx.compute_bytes, int(t.dropout > 0)))


def _head(ctx: SimulationContext) -> Stage:
    """fp32 logits over the narrow ones that the product gives; backward narrows their gradient again."""
    s, n = ctx.shape, ctx.tokens
    narrow = n * s.vocab * ctx.compute_bytes
    logits = int(terms.fused_logits(n, s.vocab))
    hidden = int(terms.fused_linear(n, s.hidden, ctx.compute_bytes))
    gradients = () if s.tied else (ctx.weight_bytes * s.vocab * s.hidden,)
    return Stage(
        label="head", kept=(logits, hidden, 0), passing=narrow, given=hidden, narrow=(narrow,), gradients=gradients
    )
