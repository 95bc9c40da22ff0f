"""What `torch.compile` saves of the reference model for backward: the cut of Inductor's partitioner, written out.

Pointwise work is recomputed in backward, so of each chain of operators only the cheapest tensor is saved. Checked
exactly against the partitioner (torch/_functorch/partitioners.py, `min_cut_rematerialization_partition`, PyTorch 2.13)
and against the replayed generated program: `tests/reference_trainer/predictions/test_compiled_saved.py`.
"""

from __future__ import annotations

from dataclasses import replace

from planner.formulas.itemsize import FP32, INT64
from planner.memory.eager.context import SimulationContext
from planner.memory.stages import Program, Stage

# fp32 tensors of the MLP's width that a recomputed block passes from its forward to its backward
WIDE_INSIDE = {"gelu": 1, "geglu": 1, "swiglu": 2}
# from this many sequences on, the partitioner saves token and position rows, not the first norm's output
TABLE_FROM = 3


def compiled_program(ctx: SimulationContext) -> Program:
    """The compiled program of one micro-batch."""
    s, w = ctx.shape, ctx.weight_bytes
    blocks = tuple(_block(ctx, i) for i in range(s.layers))
    if _recomputes_blocks(ctx):
        blocks = tuple(tuple(_recomputed(ctx, stage) for stage in stages) for stages in blocks)
    table = w * s.vocab * s.hidden
    positions = (w * s.position_rows * s.hidden,) if s.learned_positions else ()
    gains = (w * s.hidden,) * s.norm_vectors if ctx.model.embedding_norm else ()
    return Program(
        embedding=Stage(
            label="embedding",
            saved=(*_position_bytes(ctx), *(_statistics(ctx, True) if ctx.model.embedding_norm else ())),
            weight_gradients=(*gains, *positions, table),
        ),
        blocks=blocks,
        recomputed=tuple(ctx.recomputes(i) for i in range(s.layers)),
        norm=_last_norm(ctx),
        head=_head(ctx),
        residual_bytes=ctx.tokens * s.hidden * w,
        accumulates_at_end=True,
        returned_logits=ctx.tokens * s.vocab * ctx.compute_bytes if ctx.training.returns_logits else 0,
        tied_gradients=(ctx.compute_bytes * s.vocab * s.hidden, table) if s.tied else None,
    )


def _recomputes_blocks(ctx: SimulationContext) -> bool:
    """Whether blocks save only their inputs (full activation checkpointing)."""
    return ctx.training.activation_checkpointing == "full"


def _from_rows(ctx: SimulationContext) -> bool:
    """Whether the first norm is recomputed from the embedding's rows and not saved: the partitioner compares bytes.

    A norm of the embedding needs the rows itself.
    """
    return (
        ctx.model.embedding_norm
        or not ctx.shape.learned_positions
        or ctx.weight_bytes != FP32
        or ctx.training.micro_batch >= TABLE_FROM
    )


def _position_bytes(ctx: SimulationContext) -> tuple[int, ...]:
    """Bytes of position indices, and of position rows if the residual stream is recomputed from them."""
    s = ctx.shape
    if not s.learned_positions:
        return ()
    again = ctx.model.embedding_norm
    again |= ctx.training.micro_batch > 1 and (_from_rows(ctx) or _recomputes_blocks(ctx))
    return ctx.training.seq * INT64, ctx.training.seq * s.hidden * ctx.weight_bytes if again else 0


def _statistics(ctx: SimulationContext, with_mean: bool) -> tuple[int, ...]:
    """fp32 statistics of a norm: 1/σ per token, and a LayerNorm's mean if its input is saved or recomputed."""
    return (ctx.tokens * FP32,) * (2 if with_mean and ctx.model.norm == "layernorm" else 1)


def _inputs_kept(ctx: SimulationContext) -> int:
    """How many norms, counted from the first, are recomputed from what was added to the residual stream.

    A normed embedding is not narrowed a second time: the second norm then saves its own input.
    """
    if ctx.shape.learned_positions:
        return int(_from_rows(ctx))
    return 1 if ctx.model.embedding_norm else 2


def _recomputed(ctx: SimulationContext, stage: Stage) -> Stage:
    """A block's stage as backward recomputes it: norms save statistics, a wide activation its fp32 intermediate."""
    if stage.label.endswith("_norm") and stage.saved and not stage.label.startswith("blocks.attention."):
        itemsize = 0 if stage.label == "blocks.attention_norm" else ctx.compute_bytes
        return replace(stage, saved=(ctx.tokens * ctx.shape.hidden * itemsize, *stage.saved[1:]))
    if stage.label == "blocks.mlp" and ctx.model.mlp in WIDE_INSIDE:
        return replace(stage, saved=(*stage.saved, WIDE_INSIDE[ctx.model.mlp] * ctx.tokens * ctx.shape.ffn * FP32))
    if stage.label == "blocks.mlp" and ctx.model.mlp == "gelu-written-out":  # its tanh, in the input's type
        return replace(stage, saved=(*stage.saved, ctx.tokens * ctx.shape.ffn * ctx.compute_bytes))
    return stage


def _norm(ctx: SimulationContext, place: int, label: str) -> Stage:
    """A norm. It saves the normalised input if the residual stream is fp32, the input if it is narrow.

    The second norm of a model without position rows saves what the first sub-layer added to the embedding.
    """
    elements = ctx.tokens * ctx.shape.hidden
    second = place == 1 and _inputs_kept(ctx) == 2
    saved = elements * (ctx.compute_bytes if second else ctx.weight_bytes)
    return Stage(
        label=label,
        saved=(saved, *_statistics(ctx, ctx.weight_bytes != FP32 or place < _inputs_kept(ctx))),
        input_gradient=elements * ctx.compute_bytes if ctx.compute_bytes != ctx.weight_bytes else 0,
        weight_gradients=(ctx.weight_bytes * ctx.shape.hidden,) * ctx.shape.norm_vectors,
    )


def _linear(
    ctx: SimulationContext, label: str, inputs: int, outputs: int, bias: int, saved: tuple[int, ...] = ()
) -> Stage:
    """A linear layer: the cast of its weight, and the gradients of input, weight and bias."""
    weight, c, w = inputs * outputs, ctx.compute_bytes, ctx.weight_bytes
    narrows = c != w
    return Stage(
        label=label,
        saved=saved,
        weight_casts=(c * weight,) if narrows else (),
        input_gradient=ctx.tokens * inputs * c,
        compute_gradients=(c * weight,) if narrows else (),
        weight_gradients=(w * weight, *((w * outputs,) if bias else ())),
    )


def _block(ctx: SimulationContext, index: int) -> tuple[Stage, ...]:
    s, n, c = ctx.shape, ctx.tokens, ctx.compute_bytes
    into = (n * s.hidden * c,)
    proj = _linear(ctx, "blocks.attention.proj", s.query_width, s.hidden, s.proj_bias)
    return (
        _norm(ctx, 2 * index, "blocks.attention_norm"),
        _linear(ctx, "blocks.attention.qkv", s.hidden, s.query_width + 2 * s.key_width, s.qkv_bias, into),
        *_head_norms(ctx),
        Stage(
            label="blocks.attention",
            saved=_attention(ctx, index),
            input_gradient=n * (s.query_width + 2 * s.key_width) * c,
        ),
        proj,
        _norm(ctx, 2 * index + 1, "blocks.mlp_norm"),
        *_mlp(ctx, into),
    )


def _head_norms(ctx: SimulationContext) -> tuple[Stage, ...]:
    """Norms of queries and keys: their inputs are parts of the fused projection, which is saved anyway."""
    s = ctx.shape
    if not s.normed_query:
        return ()
    vectors = 2 if ctx.model.norm == "layernorm" else 1
    found = []
    for name, width, normed in (("query", s.query_width, s.normed_query), ("key", s.key_width, s.normed_key)):
        rows = ctx.tokens * width // normed * FP32
        gains = (ctx.weight_bytes * normed,) * s.norm_vectors
        found.append(Stage(label=f"blocks.attention.{name}_norm", saved=(rows,) * vectors, weight_gradients=gains))
    return tuple(found)


def _attention(ctx: SimulationContext, index: int) -> tuple[int, ...]:
    """q, k, v as one storage, rotated or normed copies of q and k, the output, the fp32 log-sum-exp."""
    s, n, c = ctx.shape, ctx.tokens, ctx.compute_bytes
    copies = (n * s.query_width * c, n * s.key_width * c) if ctx.has_rope(index) or s.normed_query else ()
    return n * (s.query_width + 2 * s.key_width) * c, *copies, n * s.query_width * c, n * s.heads * FP32


def _mlp(ctx: SimulationContext, into: tuple[int, ...]) -> tuple[Stage, ...]:
    """Saves the outputs of up and gate (ReLU: a mask of one byte) and the input of down."""
    s, wide = ctx.shape, ctx.tokens * ctx.shape.ffn
    down = _linear(ctx, "blocks.mlp.down", s.ffn, s.hidden, s.mlp_bias, (wide * ctx.compute_bytes,))
    up = _linear(ctx, "blocks.mlp.up", s.hidden, s.ffn, s.mlp_bias, into)
    if not s.gated:
        saved = wide if ctx.model.mlp == "relu" else wide * ctx.compute_bytes
        return up, Stage(label="blocks.mlp", saved=(saved,), input_gradient=wide * ctx.compute_bytes), down
    gate = _linear(ctx, "blocks.mlp.gate", s.hidden, s.ffn, s.mlp_bias)
    both = (wide * ctx.compute_bytes,) * 2
    return up, gate, Stage(label="blocks.mlp", saved=both, input_gradient=2 * wide * ctx.compute_bytes), down


def _last_norm(ctx: SimulationContext) -> Stage:
    """Like a block's norms; after recomputed blocks only the statistics are saved."""
    last = _norm(ctx, 2 * ctx.shape.layers, "norm")
    return replace(last, saved=_statistics(ctx, True)) if _recomputes_blocks(ctx) else last


def _head(ctx: SimulationContext) -> Stage:
    """Saves logits in the compute type, the head's input, and two fp32 statistics of each row's softmax."""
    s, n, c = ctx.shape, ctx.tokens, ctx.compute_bytes
    weight = s.vocab * s.hidden
    narrows = c != ctx.weight_bytes
    return Stage(
        label="head",
        saved=(n * s.vocab * c, n * s.hidden * c, 2 * n * FP32),
        weight_casts=(c * weight,) if narrows else (),
        transient=FP32,
        input_gradient=n * s.hidden * c,
        compute_gradients=(c * weight,),
        weight_gradients=() if s.tied else (ctx.weight_bytes * weight,),
    )
