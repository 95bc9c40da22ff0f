"""Scaled dot-product attention by kernel: what each allocates, saves and needs in backward.

flash: the scores are never stored. math: softmax(Q K^T) V written out in fp32, as PyTorch composes it
(aten/src/ATen/native/transformers/attention.cpp, `_scaled_dot_product_attention_math`).
"""

from __future__ import annotations

from functools import partial
from typing import Any

from planner.memory.eager import operators as op
from planner.memory.eager.autograd import Autograd
from planner.memory.eager.context import SimulationContext
from planner.memory.eager.graph import Gradient, Saved, Tensor
from planner.memory.eager.operators import FP32

RANDOM_STATE = 16  # bytes: seed and offset


Mask = Tensor | bool  # a mask of this micro-batch; or whether there is a table that stands for good


def document_masks(e: Autograd, ctx: SimulationContext) -> tuple[Tensor | None, Tensor | None]:
    """Masks that cut documents apart, for blocks without and with a window. Mirror of `borders.cut_at_borders`."""
    if not ctx.masks_documents:
        return None, None
    t, windows, same = ctx.training, ctx.window_kinds, not ctx.window_binds
    scores = t.micro_batch * t.seq * t.seq
    apart = e.new(scores, 1)
    count = scores * (ctx.shape.heads if ctx.model.position == "alibi" else 1)
    full = e.new(count, ctx.compute_bytes, "activations") if False in windows or same else None
    windowed = (full if same else e.new(count, ctx.compute_bytes, "activations")) if True in windows else None
    del apart
    keeps = e.recording and t.activation_checkpointing != "selective" and not by_math(e, ctx)
    e.label = "blocks.attention"
    for block in range(ctx.shape.layers):
        mask = windowed if ctx.windowed(block) else full
        if keeps and mask is not None and not ctx.recomputes(block):
            e.keep_for_all(mask)
    return full, windowed


def attend(e: Autograd, ctx: SimulationContext, query: Tensor, key: Tensor, value: Tensor, mask: Mask) -> Tensor:
    """The heads' outputs by the kernel that PyTorch picks; `in_rows` puts them side by side for each token."""
    if by_math(e, ctx):
        return math_attention(e, ctx, query, key, value, mask is not False)
    return flash_attention(e, ctx, query, key, value, mask)


def by_math(e: Autograd, ctx: SimulationContext) -> bool:
    """Whether attention is written out: by choice, or because a CPU's flash kernel has no dropout."""
    return ctx.training.attention_kernel == "math" or bool(ctx.training.dropout and e.recording and not ctx.cuda)


def in_rows(e: Autograd, ctx: SimulationContext, out: Tensor, sliced: bool = False) -> Tensor:
    """[B, T, a v] of the heads' outputs: a copy where they do not lie so already."""
    if not sliced and (ctx.shape.heads == 1 or not by_math(e, ctx)):
        return out
    return op.copy(e, out, e.node((out,), op.pass_gradient))


def flash_attention(
    e: Autograd, ctx: SimulationContext, query: Tensor, key: Tensor, value: Tensor, mask: Mask
) -> Tensor:
    """q, k, v, the mask, output and the fp32 log-sum-exp are saved; on CUDA also the random state of the call."""
    sizes = (query.count * query.itemsize, key.count * key.itemsize, value.count * value.itemsize)
    scratch = _cuda_scratch(ctx, query, key, value) if ctx.cuda else ()
    node = e.node((query, key, value), partial(_flash_backward, e, sizes, scratch))
    e.save(node, query, key, value)
    if isinstance(mask, Tensor):
        e.save(node, mask)
    out = e.new(query.count, query.itemsize)
    lse = e.new(ctx.tokens * ctx.shape.heads, FP32)
    e.save(node, out, lse)
    if ctx.cuda:
        e.save(node, e.new(RANDOM_STATE, 1))
    out.node = node
    return out


def _cuda_scratch(ctx: SimulationContext, query: Tensor, key: Tensor, value: Tensor) -> tuple[int, ...]:
    """What the CUDA kernel's backward needs for a moment: row sums, fp32 sums of dq, dk and dv of every query head.

    Source: csrc/flash_attn/flash_api.cpp (mha_bwd): sequences are rounded to 128, heads to 32 channels, or 64 above
    128. Not yet seen on a device.
    """
    t, s = ctx.training, ctx.shape
    rows = t.micro_batch * s.heads * -(-t.seq // 128) * 128
    unit = 32 if s.head_dim <= 128 else 64
    width = -(-s.head_dim // unit) * unit
    grouped = (query.count * query.itemsize,) * 2 if key.count < query.count else ()
    return (rows * FP32, rows * width * FP32, *grouped)


def _flash_backward(
    e: Autograd, sizes: tuple[int, int, int], scratch: tuple[int, ...], grads: list[Gradient], saved: Saved
) -> list[Any]:
    made = [e.bytes(size) for size in sizes]
    held = [e.bytes(size) for size in scratch]
    del held
    return made


def math_attention(
    e: Autograd, ctx: SimulationContext, query: Tensor, key: Tensor, value: Tensor, masked: bool
) -> Tensor:
    """Everything that is made stays until the function returns, as C++ locals do."""
    itemsize, batch, seq, heads = query.itemsize, ctx.training.micro_batch, ctx.training.seq, ctx.shape.heads
    scattered = batch > 1 and heads > 1  # heads of several sequences do not lie one after the other: matmul copies
    wide_query, wide_key, wide_value = (op.cast(e, x, FP32) for x in (query, key, value))
    scaled_query = op.scale(e, wide_query)
    mask = None if masked else _causal_mask(e, seq)
    grouped = ctx.shape.kv_heads != heads
    groups = heads // ctx.shape.kv_heads
    all_keys = repeated(e, wide_key, groups) if grouped else wide_key
    all_values = repeated(e, wide_value, groups) if grouped else wide_value
    scaled_key = op.scale(e, all_keys)
    left = op.copy(e, scaled_query, e.node((scaled_query,), op.pass_gradient)) if scattered else scaled_query
    right = scaled_key
    if scattered and not grouped:
        right = op.copy(e, scaled_key, e.node((scaled_key,), op.pass_gradient))
    scores = product(e, left, right, batch * heads * seq * seq)
    del left, right, scaled_key
    scores = op.copy(e, scores, e.node((scores,), op.pass_gradient))  # the mask is added
    weights = op.relu(e, scores)  # softmax, like ReLU, keeps its output and gives a gradient of its size
    del scores
    weights = weight_dropout(e, ctx, weights)
    narrow_weights = None if itemsize == FP32 else e.new(weights.count, itemsize)  # returned beside the output
    kept_values = all_values
    if scattered and not grouped:
        kept_values = op.copy(e, all_values, e.node((all_values,), op.pass_gradient))
    out = product(e, weights, kept_values, all_values.count, scattered)
    del kept_values
    out = op.cast(e, out, itemsize)
    del mask, narrow_weights
    return out


def _causal_mask(e: Autograd, seq: int) -> Tensor:
    ones = e.new(seq * seq, 1)
    lower = e.new(seq * seq, 1)
    del ones
    zero, minus_infinity = e.new(1, FP32), e.new(1, FP32)
    mask = e.new(seq * seq, FP32)
    del lower, zero, minus_infinity
    return mask


def repeated(e: Autograd, x: Tensor, groups: int) -> Tensor:
    """Keys or values for all query heads; backward sums over the groups."""
    node = e.node((x,), partial(_repeated_backward, e, x.count * x.itemsize))
    out = e.new(x.count * groups, x.itemsize)
    out.node = node
    return out


def _repeated_backward(e: Autograd, size: int, grads: list[Gradient], saved: Saved) -> list[Any]:
    return [e.bytes(size)]


def product(e: Autograd, left: Tensor, right: Tensor, count: int, scattered: bool = False) -> Tensor:
    """A batched matrix product of `count` elements; a gradient in another order of heads is copied first."""
    sizes = (left.count * left.itemsize, right.count * right.itemsize)
    node = e.node((left, right), partial(_product_backward, e, sizes))
    e.save(node, left, right)
    out = e.new(count, left.itemsize)
    out.node = node
    if scattered:
        out = out.view(count, e.node((out,), partial(op.one_gradient, e, count * left.itemsize)))
    return out


def _product_backward(e: Autograd, sizes: tuple[int, int], grads: list[Gradient], saved: Saved) -> list[Any]:
    right = e.viewed(sizes[1])
    return [e.viewed(sizes[0]), right]


def weight_dropout(e: Autograd, ctx: SimulationContext, weights: Tensor) -> Tensor:
    """Dropout of the attention weights, composed of operators on a CPU: noise of the input's type, a product."""
    if not ctx.training.dropout or not e.recording:
        return weights
    noise = e.new(weights.count, weights.itemsize)
    return op.multiply(e, weights, noise)
