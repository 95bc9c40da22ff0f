"""A step of Megatron-Core's fused kernels as stages, from the terms of `planner/formulas/megatron.py`.

The matmul itself adds weight gradients to the main gradients. Weights have the compute type, so nothing is cast.
"""

from __future__ import annotations

from planner.config.attention import WITHOUT_SCORES
from planner.formulas import megatron as terms
from planner.formulas.recording import whole
from planner.memory.eager.context import SimulationContext
from planner.memory.stages import Program, Stage

NO_NORM = Stage(label="norm")  # of a stage of a pipeline that has no head


def fused_program(ctx: SimulationContext) -> Program:
    """The program of one micro-batch."""
    s, w = ctx.shape, ctx.weight_bytes
    positions = (w * s.position_rows * s.hidden,) if s.learned_positions else ()
    block = _block(ctx)
    vectors = (w * s.hidden,) * s.norm_vectors
    # a norm of the embedding keeps its input, as a block's do
    normed = (_stream(ctx), *_mask(ctx)) if ctx.model.embedding_norm else _mask(ctx)
    gains = vectors if ctx.model.embedding_norm else ()
    tables = Stage(label="dropout", saved=normed, weight_gradients=(*positions, *gains, w * s.vocab * s.hidden))
    return Program(
        embedding=tables if ctx.rank.embeds else Stage(label="dropout"),
        blocks=(block,) * s.layers,
        recomputed=tuple(ctx.recomputes(i) for i in range(s.layers)),
        norm=Stage(label="norm", saved=(_stream(ctx),), weight_gradients=vectors) if ctx.rank.has_head else NO_NORM,
        head=_head(ctx) if ctx.rank.has_head else Stage(label="head", saved=(0, 0, 0)),
        residual_bytes=_stream(ctx),
        accumulates_at_end=False,
        tied_gradients=None,
    )


def _stream(ctx: SimulationContext) -> int:
    return whole(terms.fused_norm(ctx.stream_tokens, ctx.shape.hidden, ctx.compute_bytes))


def _mask(ctx: SimulationContext) -> tuple[int, ...]:
    return (whole(terms.fused_dropout_mask(ctx.stream_tokens, ctx.shape.hidden)),) if ctx.training.dropout else ()


def _norm(ctx: SimulationContext, label: str) -> Stage:
    return Stage(
        label=label,
        saved=(_stream(ctx),),
        weight_gradients=(ctx.weight_bytes * ctx.shape.hidden,) * ctx.shape.norm_vectors,
    )


def _linear(ctx: SimulationContext, label: str, inputs: int, outputs: int, bias: int) -> Stage:
    """A layer that reads the residual stream keeps this GPU's tokens of it, and gathers the others' again."""
    whole_input = whole(terms.fused_linear(ctx.tokens, inputs, ctx.compute_bytes))
    from_stream = inputs == ctx.shape.hidden and ctx.parallel.sp and not label.endswith(("proj", "down"))
    saved = whole(terms.fused_linear(ctx.stream_tokens, inputs, ctx.compute_bytes)) if from_stream else whole_input
    weight_gradients = (ctx.weight_bytes * inputs * outputs, *((ctx.weight_bytes * outputs,) if bias else ()))
    gathered = whole_input if from_stream else 0
    return Stage(
        label=label,
        saved=(saved,),
        transient=gathered,
        input_gradient=whole_input + gathered,
        weight_gradients=weight_gradients,
    )


def _block(ctx: SimulationContext) -> tuple[Stage, ...]:
    s = ctx.shape
    wide = s.ffn * (s.mlp_matrices - 1)  # gate and up are one matmul
    proj = _linear(ctx, "blocks.attention.proj", s.query_width, s.hidden, s.proj_bias)
    dropout = (Stage(label="blocks.dropout", saved=_mask(ctx)),) if ctx.training.dropout else ()
    activation = whole(terms.fused_activation(ctx.tokens, s.ffn, s.mlp_matrices, ctx.compute_bytes))
    return (
        _norm(ctx, "blocks.attention_norm"),
        _linear(ctx, "blocks.attention.qkv", s.hidden, s.query_width + 2 * s.key_width, s.qkv_bias),
        Stage(label="blocks.attention", saved=_attention(ctx), input_gradient=_queries(ctx)),
        proj,
        *dropout,
        _norm(ctx, "blocks.mlp_norm"),
        _linear(ctx, "blocks.mlp.up", s.hidden, wide, s.mlp_bias),
        Stage(label="blocks.mlp", saved=(activation,), input_gradient=activation),
        _linear(ctx, "blocks.mlp.down", s.ffn, s.hidden, s.mlp_bias),
        *dropout,
    )


def _queries(ctx: SimulationContext) -> int:
    s = ctx.shape
    return whole(terms.fused_queries_keys_values(ctx.tokens, s.query_width, s.key_width, ctx.compute_bytes))


def _attention(ctx: SimulationContext) -> tuple[int, ...]:
    """Bytes saved: queries, keys, values, and the scores or their statistics (nothing of them if recomputed)."""
    t, heads = ctx.training, ctx.shape.heads
    if t.activation_checkpointing == "selective":
        return (_queries(ctx),)
    if t.attention_kernel in WITHOUT_SCORES:
        return _queries(ctx), whole(terms.fused_flash_statistics(ctx.tokens, heads))
    return _queries(ctx), whole(terms.fused_scores(ctx.tokens, t.seq, heads, ctx.compute_bytes, int(t.dropout > 0)))


def _head(ctx: SimulationContext) -> Stage:
    """The head: fp32 logits made from narrow ones; backward makes their gradient narrow again."""
    s, n = ctx.shape, ctx.tokens
    narrow = n * s.vocab * ctx.compute_bytes
    logits = whole(terms.fused_logits(n, s.vocab))
    hidden = whole(terms.fused_linear(ctx.stream_tokens, s.hidden, ctx.compute_bytes))
    weight_gradients = () if s.tied else (ctx.weight_bytes * s.vocab * s.hidden,)
    return Stage(
        label="head",
        saved=(logits, hidden, 0),
        transient=narrow,
        input_gradient=hidden,
        compute_gradients=(narrow,),
        weight_gradients=weight_gradients,
    )
