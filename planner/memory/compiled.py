"""What `torch.compile` keeps of the reference model: the cut that Inductor's partitioner makes, written out.

Pointwise work is computed again in backward, so that of each chain only its cheapest link is kept. The witness is
the partitioner itself (torch/_functorch/partitioners.py, `min_cut_rematerialization_partition`, PyTorch 2.13), exactly,
and the generated program, replayed: `tests/reference_trainer/witness/test_compiled_saved.py`.
"""

from __future__ import annotations

from dataclasses import replace

from planner.memory.eager.facts import Facts
from planner.memory.eager.operators import FP32, INDEX
from planner.memory.stages import Program, Stage

# fp32 tensors of the MLP's width that a recomputed block shares between its forward and its backward
WIDE_INSIDE = {"gelu": 1, "geglu": 1, "swiglu": 2}
TABLE_FROM = 3  # sequences from which the partitioner keeps token and position rows in place of the first norm's output


def compiled_program(f: Facts) -> Program:
    """The compiled network of one micro-batch."""
    s, w = f.shape, f.weights
    blocks = tuple(_block(f, i) for i in range(s.layers))
    if _whole(f):
        blocks = tuple(tuple(_again(f, stage) for stage in stages) for stages in blocks)
    table = w * s.vocab * s.hidden
    positions = (w * s.position_rows * s.hidden,) if s.learned_positions else ()
    return Program(
        before=Stage(label="embedding", kept=_before(f), gradients=(*positions, table)),
        blocks=blocks,
        recomputed=tuple(f.recomputes(i) for i in range(s.layers)),
        norm=_last_norm(f),
        head=_head(f),
        stream=f.tokens * s.hidden * w,
        together=True,
        logits=f.tokens * s.vocab * f.compute if f.training.returns_logits else 0,
        tied=(f.compute * s.vocab * s.hidden, table) if s.tied else None,
    )


def _whole(f: Facts) -> bool:
    """Whether blocks keep their inputs only."""
    return f.training.activation_checkpointing == "full"


def _from_rows(f: Facts) -> bool:
    """Whether the first norm is computed again from the embedding's rows, not kept: bytes and depth decide."""
    return not f.shape.learned_positions or f.weights != FP32 or f.training.micro_batch >= TABLE_FROM


def _before(f: Facts) -> tuple[int, ...]:
    """Positions' indices, and their rows where the stream is computed again: of one sequence the sum is no larger."""
    s = f.shape
    if not s.learned_positions:
        return ()
    again = f.training.micro_batch > 1 and (_from_rows(f) or _whole(f))
    return f.training.seq * INDEX, f.training.seq * s.hidden * f.weights if again else 0


def _statistics(f: Facts, place: int) -> tuple[int, ...]:
    """fp32 per token of the norm at `place` in the stream: 1/σ, and the mean where the input is kept."""
    again = f.weights != FP32 or place < _inputs_kept(f)
    return (f.tokens * FP32,) * (2 if again and f.model.norm == "layernorm" else 1)


def _inputs_kept(f: Facts) -> int:
    """Norms, from the first on, that are computed again from what was added to the stream."""
    if f.shape.learned_positions:
        return int(_from_rows(f))
    return 2


def _again(f: Facts, stage: Stage) -> Stage:
    """A block's stage as backward computes it again: of norms the statistics, of a wide activation its fp32 inside."""
    if stage.label.endswith("_norm") and stage.kept and not stage.label.startswith("blocks.attention."):
        item = 0 if stage.label == "blocks.attention_norm" else f.compute
        return replace(stage, kept=(f.tokens * f.shape.hidden * item, *stage.kept[1:]))
    if stage.label == "blocks.mlp" and f.model.mlp in WIDE_INSIDE:
        return replace(stage, kept=(*stage.kept, WIDE_INSIDE[f.model.mlp] * f.tokens * f.shape.ffn * FP32))
    if stage.label == "blocks.mlp" and f.model.mlp == "gelu-written-out":  # its tanh, in the type of its input
        return replace(stage, kept=(*stage.kept, f.tokens * f.shape.ffn * f.compute))
    return stage


def _norm(f: Facts, place: int, label: str) -> Stage:
    """fp32 stream: the normalised input is kept. Narrow stream: the input.

    Of the second norm of a model without position rows: what the first sub-layer added to the embedding.
    """
    s, n = f.shape, f.tokens
    second = place == 1 and _inputs_kept(f) == 2
    item = f.compute if second else f.weights
    gains = (f.weights * s.hidden,) * s.norm_vectors
    copy = n * s.hidden * f.compute if f.compute != f.weights else 0
    return Stage(label=label, kept=(n * s.hidden * item, *_statistics(f, place)), given=copy, gradients=gains)


def _linear(f: Facts, label: str, inputs: int, outputs: int, bias: int, kept: tuple[int, ...] = ()) -> Stage:
    """A product: the cast of its weight, and the gradients of input, weight and bias."""
    weight, c, w = inputs * outputs, f.compute, f.weights
    narrows = c != w
    return Stage(
        label=label,
        kept=kept,
        casts=(c * weight,) if narrows else (),
        given=f.tokens * inputs * c,
        narrow=(c * weight,) if narrows else (),
        gradients=(w * weight, *((w * outputs,) if bias else ())),
    )


def _block(f: Facts, index: int) -> tuple[Stage, ...]:
    s, n, c = f.shape, f.tokens, f.compute
    into = (n * s.hidden * c,)
    proj = _linear(f, "blocks.attention.proj", s.query_width, s.hidden, s.proj_bias)
    return (
        _norm(f, 2 * index, "blocks.attention_norm"),
        _linear(f, "blocks.attention.qkv", s.hidden, s.query_width + 2 * s.key_width, s.qkv_bias, into),
        *_head_norms(f),
        Stage(
            label="blocks.attention",
            kept=_attention(f, index),
            given=n * (s.query_width + 2 * s.key_width) * c,
        ),
        proj,
        _norm(f, 2 * index + 1, "blocks.mlp_norm"),
        *_mlp(f, into),
    )


def _head_norms(f: Facts) -> tuple[Stage, ...]:
    """Norms of queries and keys: their inputs are parts of the fused projection, which is kept anyway."""
    s = f.shape
    if not s.normed_query:
        return ()
    vectors = 2 if f.model.norm == "layernorm" else 1
    found = []
    for name, width, normed in (("query", s.query_width, s.normed_query), ("key", s.key_width, s.normed_key)):
        rows = f.tokens * width // normed * FP32
        gains = (f.weights * normed,) * s.norm_vectors
        found.append(Stage(label=f"blocks.attention.{name}_norm", kept=(rows,) * vectors, gradients=gains))
    return tuple(found)


def _attention(f: Facts, index: int) -> tuple[int, ...]:
    """q, k, v as one storage, turned or normed copies of q and k, the output, the fp32 log-sum-exp."""
    s, n, c = f.shape, f.tokens, f.compute
    copies = (n * s.query_width * c, n * s.key_width * c) if f.rotates(index) or s.normed_query else ()
    return (
        n * (s.query_width + 2 * s.key_width) * c,
        *copies,
        n * s.query_width * c,
        n * s.heads * FP32,
    )


def _mlp(f: Facts, into: tuple[int, ...]) -> tuple[Stage, ...]:
    """Products' outputs, or of ReLU a mask of one byte; the activation's output feeds the last product."""
    s, wide = f.shape, f.tokens * f.shape.ffn
    down = _linear(f, "blocks.mlp.down", s.ffn, s.hidden, s.mlp_bias, (wide * f.compute,))
    up = _linear(f, "blocks.mlp.up", s.hidden, s.ffn, s.mlp_bias, into)
    if not s.gated:
        kept = wide if f.model.mlp == "relu" else wide * f.compute
        return up, Stage(label="blocks.mlp", kept=(kept,), given=wide * f.compute), down
    gate = _linear(f, "blocks.mlp.gate", s.hidden, s.ffn, s.mlp_bias)
    both = (wide * f.compute,) * 2
    return up, gate, Stage(label="blocks.mlp", kept=both, given=2 * wide * f.compute), down


def _last_norm(f: Facts) -> Stage:
    """Like a block's norms; after recomputed blocks only the statistics are kept."""
    s, n = f.shape, f.tokens
    last = _norm(f, 2 * s.layers, "norm")
    statistics = last.kept[1:] if not _whole(f) else (n * FP32,) * (2 if f.model.norm == "layernorm" else 1)
    stream = last.kept[:1] if not _whole(f) else ()
    return Stage(label="norm", kept=(*stream, *statistics), given=last.given, gradients=last.gradients)


def _head(f: Facts) -> Stage:
    """Logits in the compute type, the head's input, maximum and logarithm of each row's softmax."""
    s, n, c = f.shape, f.tokens, f.compute
    weight = s.vocab * s.hidden
    narrows = c != f.weights
    return Stage(
        label="head",
        kept=(n * s.vocab * c, n * s.hidden * c, 2 * n * FP32),
        casts=(c * weight,) if narrows else (),
        passing=FP32,
        given=n * s.hidden * c,
        narrow=(c * weight,),
        gradients=() if s.tied else (f.weights * weight,),
    )
