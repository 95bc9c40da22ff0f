"""What `torch.compile` keeps of the reference model: the cut that Inductor's partitioner makes, written out.

Pointwise work is computed again in backward, so that of each chain only its cheapest link is kept. The witness is
the partitioner itself (torch/_functorch/partitioners.py, `min_cut_rematerialization_partition`, PyTorch 2.13), exactly,
and the generated program, replayed: `tests/reference_trainer/witness/test_compiled_saved.py`.
"""

from __future__ import annotations

from dataclasses import replace

from planner.formulas.itemsize import FP32, INT64
from planner.memory.eager.context import SimulationContext
from planner.memory.stages import Program, Stage

# fp32 tensors of the MLP's width that a recomputed block shares between its forward and its backward
WIDE_INSIDE = {"gelu": 1, "geglu": 1, "swiglu": 2}
TABLE_FROM = 3  # sequences from which the partitioner keeps token and position rows in place of the first norm's output


def compiled_program(ctx: SimulationContext) -> Program:
    """The compiled network of one micro-batch."""
    s, w = ctx.shape, ctx.weight_bytes
    blocks = tuple(_block(ctx, i) for i in range(s.layers))
    if _whole(ctx):
        blocks = tuple(tuple(_again(ctx, stage) for stage in stages) for stages in blocks)
    table = w * s.vocab * s.hidden
    positions = (w * s.position_rows * s.hidden,) if s.learned_positions else ()
    return Program(
        before=Stage(label="embedding", kept=_before(ctx), gradients=(*positions, table)),
        blocks=blocks,
        recomputed=tuple(ctx.recomputes(i) for i in range(s.layers)),
        norm=_last_norm(ctx),
        head=_head(ctx),
        stream=ctx.tokens * s.hidden * w,
        together=True,
        logits=ctx.tokens * s.vocab * ctx.compute_bytes if ctx.training.returns_logits else 0,
        tied=(ctx.compute_bytes * s.vocab * s.hidden, table) if s.tied else None,
    )


def _whole(ctx: SimulationContext) -> bool:
    """Whether blocks keep their inputs only."""
    return ctx.training.activation_checkpointing == "full"


def _from_rows(ctx: SimulationContext) -> bool:
    """Whether the first norm is computed again from the embedding's rows, not kept: bytes and depth decide."""
    return not ctx.shape.learned_positions or ctx.weight_bytes != FP32 or ctx.training.micro_batch >= TABLE_FROM


def _before(ctx: SimulationContext) -> tuple[int, ...]:
    """Positions' indices, and their rows where the stream is computed again: of one sequence the sum is no larger."""
    s = ctx.shape
    if not s.learned_positions:
        return ()
    again = ctx.training.micro_batch > 1 and (_from_rows(ctx) or _whole(ctx))
    return ctx.training.seq * INT64, ctx.training.seq * s.hidden * ctx.weight_bytes if again else 0


def _statistics(ctx: SimulationContext, place: int) -> tuple[int, ...]:
    """fp32 per token of the norm at `place` in the stream: 1/σ, and the mean where the input is kept."""
    again = ctx.weight_bytes != FP32 or place < _inputs_kept(ctx)
    return (ctx.tokens * FP32,) * (2 if again and ctx.model.norm == "layernorm" else 1)


def _inputs_kept(ctx: SimulationContext) -> int:
    """Norms, from the first on, that are computed again from what was added to the stream."""
    if ctx.shape.learned_positions:
        return int(_from_rows(ctx))
    return 2


def _again(ctx: SimulationContext, stage: Stage) -> Stage:
    """A block's stage as backward computes it again: of norms the statistics, of a wide activation its fp32 inside."""
    if stage.label.endswith("_norm") and stage.kept and not stage.label.startswith("blocks.attention."):
        itemsize = 0 if stage.label == "blocks.attention_norm" else ctx.compute_bytes
        return replace(stage, kept=(ctx.tokens * ctx.shape.hidden * itemsize, *stage.kept[1:]))
    if stage.label == "blocks.mlp" and ctx.model.mlp in WIDE_INSIDE:
        return replace(stage, kept=(*stage.kept, WIDE_INSIDE[ctx.model.mlp] * ctx.tokens * ctx.shape.ffn * FP32))
    if stage.label == "blocks.mlp" and ctx.model.mlp == "gelu-written-out":  # its tanh, in the type of its input
        return replace(stage, kept=(*stage.kept, ctx.tokens * ctx.shape.ffn * ctx.compute_bytes))
    return stage


def _norm(ctx: SimulationContext, place: int, label: str) -> Stage:
    """fp32 stream: the normalised input is kept. Narrow stream: the input.

    Of the second norm of a model without position rows: what the first sub-layer added to the embedding.
    """
    s, n = ctx.shape, ctx.tokens
    second = place == 1 and _inputs_kept(ctx) == 2
    itemsize = ctx.compute_bytes if second else ctx.weight_bytes
    gains = (ctx.weight_bytes * s.hidden,) * s.norm_vectors
    copy = n * s.hidden * ctx.compute_bytes if ctx.compute_bytes != ctx.weight_bytes else 0
    return Stage(label=label, kept=(n * s.hidden * itemsize, *_statistics(ctx, place)), given=copy, gradients=gains)


def _linear(
    ctx: SimulationContext, label: str, inputs: int, outputs: int, bias: int, kept: tuple[int, ...] = ()
) -> Stage:
    """A product: the cast of its weight, and the gradients of input, weight and bias."""
    weight, c, w = inputs * outputs, ctx.compute_bytes, ctx.weight_bytes
    narrows = c != w
    return Stage(
        label=label,
        kept=kept,
        casts=(c * weight,) if narrows else (),
        given=ctx.tokens * inputs * c,
        narrow=(c * weight,) if narrows else (),
        gradients=(w * weight, *((w * outputs,) if bias else ())),
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
            kept=_attention(ctx, index),
            given=n * (s.query_width + 2 * s.key_width) * c,
        ),
        proj,
        _norm(ctx, 2 * index + 1, "blocks.mlp_norm"),
        *_mlp(ctx, into),
    )


def _head_norms(ctx: SimulationContext) -> tuple[Stage, ...]:
    """Norms of queries and keys: their inputs are parts of the fused projection, which is kept anyway."""
    s = ctx.shape
    if not s.normed_query:
        return ()
    vectors = 2 if ctx.model.norm == "layernorm" else 1
    found = []
    for name, width, normed in (("query", s.query_width, s.normed_query), ("key", s.key_width, s.normed_key)):
        rows = ctx.tokens * width // normed * FP32
        gains = (ctx.weight_bytes * normed,) * s.norm_vectors
        found.append(Stage(label=f"blocks.attention.{name}_norm", kept=(rows,) * vectors, gradients=gains))
    return tuple(found)


def _attention(ctx: SimulationContext, index: int) -> tuple[int, ...]:
    """q, k, v as one storage, turned or normed copies of q and k, the output, the fp32 log-sum-exp."""
    s, n, c = ctx.shape, ctx.tokens, ctx.compute_bytes
    copies = (n * s.query_width * c, n * s.key_width * c) if ctx.has_rope(index) or s.normed_query else ()
    return (
        n * (s.query_width + 2 * s.key_width) * c,
        *copies,
        n * s.query_width * c,
        n * s.heads * FP32,
    )


def _mlp(ctx: SimulationContext, into: tuple[int, ...]) -> tuple[Stage, ...]:
    """Products' outputs, or of ReLU a mask of one byte; the activation's output feeds the last product."""
    s, wide = ctx.shape, ctx.tokens * ctx.shape.ffn
    down = _linear(ctx, "blocks.mlp.down", s.ffn, s.hidden, s.mlp_bias, (wide * ctx.compute_bytes,))
    up = _linear(ctx, "blocks.mlp.up", s.hidden, s.ffn, s.mlp_bias, into)
    if not s.gated:
        kept = wide if ctx.model.mlp == "relu" else wide * ctx.compute_bytes
        return up, Stage(label="blocks.mlp", kept=(kept,), given=wide * ctx.compute_bytes), down
    gate = _linear(ctx, "blocks.mlp.gate", s.hidden, s.ffn, s.mlp_bias)
    both = (wide * ctx.compute_bytes,) * 2
    return up, gate, Stage(label="blocks.mlp", kept=both, given=2 * wide * ctx.compute_bytes), down


def _last_norm(ctx: SimulationContext) -> Stage:
    """Like a block's norms; after recomputed blocks only the statistics are kept."""
    s, n = ctx.shape, ctx.tokens
    last = _norm(ctx, 2 * s.layers, "norm")
    statistics = last.kept[1:] if not _whole(ctx) else (n * FP32,) * (2 if ctx.model.norm == "layernorm" else 1)
    stream = last.kept[:1] if not _whole(ctx) else ()
    return Stage(label="norm", kept=(*stream, *statistics), given=last.given, gradients=last.gradients)


def _head(ctx: SimulationContext) -> Stage:
    """Logits in the compute type, the head's input, maximum and logarithm of each row's softmax."""
    s, n, c = ctx.shape, ctx.tokens, ctx.compute_bytes
    weight = s.vocab * s.hidden
    narrows = c != ctx.weight_bytes
    return Stage(
        label="head",
        kept=(n * s.vocab * c, n * s.hidden * c, 2 * n * FP32),
        casts=(c * weight,) if narrows else (),
        passing=FP32,
        given=n * s.hidden * c,
        narrow=(c * weight,),
        gradients=() if s.tied else (ctx.weight_bytes * weight,),
    )
