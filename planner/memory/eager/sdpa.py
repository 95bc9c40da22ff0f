"""Scaled dot-product attention: what each kernel allocates and saves, and its scratch space in backward.

flash: the scores are never stored. math: softmax(Q K^T) V written out in fp32, as PyTorch composes it
(aten/src/ATen/native/transformers/attention.cpp, `_scaled_dot_product_attention_math`).
"""

from __future__ import annotations

from functools import partial

from planner.counts.attention import repeats_keys
from planner.formulas.itemsize import FP32
from planner.memory.eager import operators as op
from planner.memory.eager.autograd import Autograd
from planner.memory.eager.context import SimulationContext
from planner.memory.eager.graph import Tensor

RANDOM_STATE = 16  # bytes: seed and offset
MASK_ALIGNMENT = 8  # elements


Mask = Tensor | bool  # the mask of this micro-batch, or whether a permanent mask exists


def document_masks(e: Autograd, ctx: SimulationContext) -> tuple[Tensor | None, Tensor | None]:
    """Document masks, without and with a window. Simulates `reference_trainer/model/document_masks.py`."""
    if not ctx.masks_documents:
        return None, None
    t, windows, same = ctx.training, ctx.window_kinds, not ctx.window_binds
    scores = t.micro_batch * t.seq * t.seq
    apart = e.empty(scores, 1)
    count = scores * (ctx.shape.heads if ctx.model.position == "alibi" else 1)
    full = e.empty(count, ctx.compute_bytes, "activations") if False in windows or same else None
    windowed = (full if same else e.empty(count, ctx.compute_bytes, "activations")) if True in windows else None
    del apart
    keeps = e.recording and t.activation_checkpointing != "selective" and not by_math(e, ctx)
    keeps = keeps and (t.seq % MASK_ALIGNMENT == 0 or ctx.kernel(masked=True) != "efficient")  # else copies are saved
    e.label = "blocks.attention"
    for block in range(ctx.shape.layers):
        mask = windowed if ctx.windowed(block) else full
        if keeps and mask is not None and not ctx.recomputes(block):
            e.keep_for_all(mask)
    return full, windowed


def attend(e: Autograd, ctx: SimulationContext, query: Tensor, key: Tensor, value: Tensor, mask: Mask) -> Tensor:
    """The heads' outputs, by the kernel that PyTorch picks; `in_rows` then puts them next to each other by token."""
    if by_math(e, ctx):
        return math_attention(e, ctx, query, key, value, mask is not False)
    return flash_attention(e, ctx, query, key, value, mask)


def by_math(e: Autograd, ctx: SimulationContext) -> bool:
    """Whether attention is written out: if the config says so, or because a CPU's flash kernel has no dropout."""
    return ctx.training.attention_kernel == "math" or bool(ctx.training.dropout and e.recording and not ctx.cuda)


def in_rows(e: Autograd, ctx: SimulationContext, out: Tensor, sliced: bool = False) -> Tensor:
    """The heads' outputs as [B, T, a v]: a copy unless they have this layout already."""
    if not sliced and (ctx.shape.heads == 1 or not by_math(e, ctx)):
        return out
    return op.copy(e, out)


def flash_attention(
    e: Autograd, ctx: SimulationContext, query: Tensor, key: Tensor, value: Tensor, mask: Mask
) -> Tensor:
    """Flash attention: saves q, k, v, the mask, output and fp32 log-sum-exp; on CUDA also the random state.

    The memory-efficient and cuDNN's kernel are alike; where the first has grouped heads, keys and values are repeated
    for all query heads, and the copies are saved.
    """
    kernel = ctx.kernel(mask is not False)
    if repeats_keys(kernel) and key.count < query.count:
        groups = ctx.shape.heads // ctx.shape.kv_heads
        key, value = repeated(e, key, groups), repeated(e, value, groups)
    if kernel == "efficient" and mask is not False:
        mask = _aligned(e, ctx, mask)
    scratch = _cuda_scratch(ctx, query, key, value) if ctx.cuda else ()
    backward = op.new_gradients(
        e, query.nbytes, key.nbytes, value.nbytes, after=(*scratch, *_ring_in_backward(ctx, key, value))
    )
    save = (query, key, value, mask) if isinstance(mask, Tensor) else (query, key, value)
    ring = [e.allocate(size) for size in _ring_in_forward(ctx, query, key, value)]
    out = op.operator(e, (query, key, value), backward, query.count, query.itemsize, save=save)
    del ring
    lse = e.empty(_log_sum_exps(ctx, kernel), FP32)
    e.save(out.node, out, lse)
    if ctx.cuda and (kernel != "efficient" or ctx.training.dropout):  # else its two numbers are on the host
        e.save(out.node, e.empty(RANDOM_STATE, 1))
    return out


def _aligned(e: Autograd, ctx: SimulationContext, mask: Mask) -> Mask:
    """The mask as the memory-efficient kernel reads it: a copy with longer rows if they are no multiple of 8 elements.

    Source: `pad_bias` in aten/src/ATen/native/transformers/attention.cpp. Each block copies and saves its own.
    """
    t = ctx.training
    if t.seq % MASK_ALIGNMENT == 0:
        return mask
    batch, heads = t.micro_batch if ctx.masks_documents else 1, ctx.shape.heads if ctx.model.position == "alibi" else 1
    longer = -(-t.seq // MASK_ALIGNMENT) * MASK_ALIGNMENT
    return e.empty(batch * heads * t.seq * longer, ctx.compute_bytes)


def _log_sum_exps(ctx: SimulationContext, kernel: str) -> int:
    """How many a kernel saves: one of each head and token; the memory-efficient kernel rounds sequences up to 32.

    Source: torch/_meta_registrations.py, which a test asks.
    """
    t, unit = ctx.training, 32 if kernel == "efficient" else 1
    return t.micro_batch * ctx.shape.heads * (-(-t.seq // unit) * unit)


def _ring_in_forward(ctx: SimulationContext, query: Tensor, key: Tensor, value: Tensor) -> tuple[int, ...]:
    """Context parallelism: keys and values that are read and those that arrive, the sum of outputs in fp32.

    Source: Liu et al. 2023 (ring attention, arXiv 2310.01889), two blocks in flight.
    """
    if ctx.parallel.cp == 1:
        return ()
    return 2 * (key.nbytes + value.nbytes), query.count * FP32, ctx.tokens * ctx.shape.heads * FP32


def _ring_in_backward(ctx: SimulationContext, key: Tensor, value: Tensor) -> tuple[int, ...]:
    """Keys and values in flight, and their gradients in fp32, which travel with them."""
    if ctx.parallel.cp == 1:
        return ()
    return 2 * (key.nbytes + value.nbytes), 2 * (key.count + value.count) * FP32


def _cuda_scratch(ctx: SimulationContext, query: Tensor, key: Tensor, value: Tensor) -> tuple[int, ...]:
    """Scratch bytes of the CUDA kernel's backward: row sums, fp32 sums of dq, dk and dv of every query head.

    Source: csrc/flash_attn/flash_api.cpp (mha_bwd): sequences are rounded to 128, heads to 32 channels, or 64 above
    128. Not validated on a GPU.
    """
    t, s = ctx.training, ctx.shape
    rows = t.micro_batch * s.heads * -(-t.seq // 128) * 128
    unit = 32 if s.head_dim <= 128 else 64
    width = -(-s.head_dim // unit) * unit
    grouped = (query.nbytes,) * 2 if key.count < query.count else ()
    return (rows * FP32, rows * width * FP32, *grouped)


def math_attention(
    e: Autograd, ctx: SimulationContext, query: Tensor, key: Tensor, value: Tensor, masked: bool
) -> Tensor:
    """Attention written out. All tensors it makes live until it returns, like C++ locals."""
    itemsize, batch, seq, heads = query.itemsize, ctx.training.micro_batch, ctx.training.seq, ctx.shape.heads
    scattered = batch > 1 and heads > 1  # heads of several sequences are not contiguous: matmul copies
    wide_query, wide_key, wide_value = (op.cast(e, x, FP32) for x in (query, key, value))
    scaled_query = op.scale(e, wide_query)
    mask = None if masked else _causal_mask(e, seq)
    grouped = ctx.shape.kv_heads != heads
    groups = heads // ctx.shape.kv_heads
    all_keys = repeated(e, wide_key, groups) if grouped else wide_key
    all_values = repeated(e, wide_value, groups) if grouped else wide_value
    scaled_key = op.scale(e, all_keys)
    left = op.copy(e, scaled_query) if scattered else scaled_query
    right = scaled_key
    if scattered and not grouped:
        right = op.copy(e, scaled_key)
    scores = product(e, left, right, batch * heads * seq * seq)
    del left, right, scaled_key
    scores = op.copy(e, scores)  # the mask is added
    weights = op.relu(e, scores)  # softmax: like ReLU, saves its output
    del scores
    weights = weight_dropout(e, ctx, weights)
    narrow_weights = None if itemsize == FP32 else e.empty(weights.count, itemsize)  # returned with the output
    kept_values = all_values
    if scattered and not grouped:
        kept_values = op.copy(e, all_values)
    out = product(e, weights, kept_values, all_values.count, scattered)
    del kept_values
    out = op.cast(e, out, itemsize)
    del mask, narrow_weights
    return out


def _causal_mask(e: Autograd, seq: int) -> Tensor:
    ones = e.empty(seq * seq, 1)
    lower = e.empty(seq * seq, 1)
    del ones
    zero, minus_infinity = e.empty(1, FP32), e.empty(1, FP32)
    mask = e.empty(seq * seq, FP32)
    del lower, zero, minus_infinity
    return mask


def repeated(e: Autograd, x: Tensor, groups: int) -> Tensor:
    """Keys or values for all query heads; backward sums over the groups."""
    return op.operator(e, (x,), op.new_gradients(e, x.nbytes), x.count * groups, x.itemsize)


def product(e: Autograd, left: Tensor, right: Tensor, count: int, scattered: bool = False) -> Tensor:
    """A batched matrix product of `count` elements; a gradient in another order of heads is copied first."""
    backward = partial(op.matmul_backward, e, (left.nbytes, right.nbytes), None)
    out = op.operator(e, (left, right), backward, count, left.itemsize, save=(left, right))
    return op.view(e, out, count) if scattered else out


def weight_dropout(e: Autograd, ctx: SimulationContext, weights: Tensor) -> Tensor:
    """Dropout of the attention weights, written out on a CPU: noise in the input's type, multiplied."""
    if not ctx.training.dropout or not e.recording:
        return weights
    noise = e.empty(weights.count, weights.itemsize)
    return op.multiply(e, weights, noise)
