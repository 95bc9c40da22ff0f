"""The kernels of a training step, each prepared to be timed alone at a given size.

Each entry of `KERNELS` has the dtypes and sizes of a kernel, and prepares one call.
A forward kernel runs without autograd, a backward one through `torch.autograd.grad` on a kept graph.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from planner.config.model import NORM_EPS
from reference_trainer.device.dtypes import DTYPES
from reference_trainer.measure.kernel_overheads import (
    CHAIN,
    TINY,
    backward_call,
    dispatch,
    engine,
    fresh_pages,
    leaves_of,
    refill,
)
from reference_trainer.measure.kernel_pool import TIMED_DTYPES, Kernel, KernelCall, TensorPool
from reference_trainer.model.layers import _RMSNormFunction, _RotaryFunction

_Sizes = tuple[int, ...]
_Operands = tuple[Callable[..., Tensor], list[Tensor]]  # a function of tensors, and the tensors to call it with

SMALL_VOCAB = 256  # rows of the table in the embedding kernels: the rest of a larger one is the kernel `fill`


# --- matrix products and attention ------------------------------------------------------------------------------------


def _gemm_forward(pool: TensorPool, dtype: str, sizes: _Sizes) -> KernelCall:
    n, inputs, outputs = sizes
    x, weight, out = pool.random(dtype, n, inputs), pool.random(dtype, outputs, inputs), pool.scratch(dtype, n, outputs)
    return lambda: torch.mm(x, weight.t(), out=out)


def _gemm_input_gradient(pool: TensorPool, dtype: str, sizes: _Sizes) -> KernelCall:
    n, inputs, outputs = sizes
    grad, weight, out = (
        pool.random(dtype, n, outputs),
        pool.random(dtype, outputs, inputs),
        pool.scratch(dtype, n, inputs),
    )
    return lambda: torch.mm(grad, weight, out=out)


def _gemm_weight_gradient(pool: TensorPool, dtype: str, sizes: _Sizes) -> KernelCall:
    n, inputs, outputs = sizes
    grad, x, out = pool.random(dtype, n, outputs), pool.random(dtype, n, inputs), pool.scratch(dtype, outputs, inputs)
    return lambda: torch.mm(grad.t(), x, out=out)


def _attention(pool: TensorPool, dtype: str, sizes: _Sizes, grad: bool) -> tuple[list[Tensor], Callable[[], Tensor]]:
    heads, length, width = sizes
    # one sequence of all heads, laid out as the fused projection leaves it
    qkv = pool.random(dtype, 1, length, 3 * heads, width).transpose(1, 2)
    leaves = [part.detach().requires_grad_(grad) for part in qkv.chunk(3, dim=1)]
    query, key, value = leaves
    return leaves, lambda: F.scaled_dot_product_attention(query, key, value, is_causal=True)


def _attention_forward(pool: TensorPool, dtype: str, sizes: _Sizes) -> KernelCall:
    return _attention(pool, dtype, sizes, grad=False)[1]


def _attention_backward(pool: TensorPool, dtype: str, sizes: _Sizes) -> KernelCall:
    leaves, forward = _attention(pool, dtype, sizes, grad=True)
    heads, length, width = sizes
    # the gradient arrives with tokens before heads, from the projection
    return backward_call(forward(), leaves, pool.random(dtype, 1, length, heads, width).transpose(1, 2))


# --- norms, activations, rotary embedding, loss, embedding ------------------------------------------------------------


def _pair(
    make: Callable[[TensorPool, str, _Sizes], _Operands],
) -> tuple[Any, Any]:
    """Forward and backward of a function of tensors; `make` returns the function and its operands."""

    def forward(pool: TensorPool, dtype: str, sizes: _Sizes) -> KernelCall:
        function, operands = make(pool, dtype, sizes)
        return lambda: function(*operands)

    def backward(pool: TensorPool, dtype: str, sizes: _Sizes) -> KernelCall:
        function, operands = make(pool, dtype, sizes)
        leaves = leaves_of(*operands)
        out = function(*leaves)
        grad = pool.random(dtype, *out.shape) if out.dim() else torch.ones_like(out)
        return backward_call(out, leaves, grad)

    return forward, backward


def _layer_norm(pool: TensorPool, dtype: str, sizes: _Sizes) -> _Operands:
    width = sizes[1]
    operands = [pool.random(dtype, *sizes), pool.random(dtype, width), pool.random(dtype, width)]
    return lambda x, weight, bias: F.layer_norm(x, (width,), weight, bias, NORM_EPS), operands


def _rms_norm(pool: TensorPool, dtype: str, sizes: _Sizes) -> _Operands:
    operands = [pool.random(dtype, *sizes), pool.random(dtype, sizes[1])]
    return lambda x, weight: _RMSNormFunction.apply(x, weight, NORM_EPS), operands  # type: ignore[no-untyped-call]


def _gelu(pool: TensorPool, dtype: str, sizes: _Sizes) -> _Operands:
    return lambda x: F.gelu(x, approximate="tanh"), [pool.random(dtype, *sizes)]


def _swiglu(pool: TensorPool, dtype: str, sizes: _Sizes) -> _Operands:
    return lambda gate, up: F.silu(gate) * up, [pool.random(dtype, *sizes), pool.random(dtype, *sizes)]


def _rotary(pool: TensorPool, dtype: str, sizes: _Sizes) -> _Operands:
    # heads of 64 channels, 4 of them a token: the cost is that of the elements
    length = sizes[0] // 256
    cos, sin = pool.random("fp32", length, 1, 32), pool.random("fp32", length, 1, 32)
    # queries lie between keys and values in memory, as the fused projection leaves them
    x = pool.random(dtype, 1, length, 12, 64)[:, :, :4]
    return lambda x: _RotaryFunction.apply(x, cos, sin), [x]  # type: ignore[no-untyped-call]


def _loss(pool: TensorPool, dtype: str, sizes: _Sizes) -> _Operands:
    targets = torch.arange(sizes[0], device=pool.device) % sizes[1]
    return lambda logits: F.cross_entropy(logits, targets, reduction="sum"), [pool.random(dtype, *sizes)]


def _embedding(pool: TensorPool, dtype: str, sizes: _Sizes) -> _Operands:
    ids = torch.arange(sizes[0], device=pool.device) * 7 % SMALL_VOCAB
    return lambda table: F.embedding(ids, table), [pool.random(dtype, SMALL_VOCAB, sizes[1])]


# --- adding, copying, casting -----------------------------------------------------------------------------------------


def _add(pool: TensorPool, dtype: str, sizes: _Sizes) -> KernelCall:
    # the residual stream is fp32 in every recipe
    x, y = pool.random("fp32", *sizes), pool.random(dtype, *sizes)
    return lambda: x + y


def _accumulate(pool: TensorPool, dtype: str, sizes: _Sizes) -> KernelCall:
    x, y = pool.scratch(dtype, *sizes), pool.random(dtype, *sizes)
    return lambda: x.add_(y)


def _copy(pool: TensorPool, dtype: str, sizes: _Sizes) -> KernelCall:
    width = min(sizes[0], 256)
    bias, out = pool.random(dtype, width), pool.scratch(dtype, sizes[0] // width, width)
    return lambda: out.copy_(bias.expand_as(out))


def _join(pool: TensorPool, dtype: str, sizes: _Sizes) -> KernelCall:
    parts = [pool.random(dtype, sizes[0] // 192, 1, 64) for _ in range(3)]
    return lambda: torch.cat(parts, dim=1)


def _sum_rows(pool: TensorPool, dtype: str, sizes: _Sizes) -> KernelCall:
    x = pool.random(dtype, *sizes)
    return lambda: x.sum(0)


def _fill(pool: TensorPool, dtype: str, sizes: _Sizes) -> KernelCall:
    x = pool.scratch(dtype, *sizes)
    return lambda: x.zero_()


def _cast_down(pool: TensorPool, dtype: str, sizes: _Sizes) -> KernelCall:
    x = pool.random("fp32", *sizes)
    return lambda: x.to(DTYPES[dtype])


def _cast_up(pool: TensorPool, dtype: str, sizes: _Sizes) -> KernelCall:
    x = pool.random(dtype, *sizes)
    return lambda: x.float()


# --- the update -------------------------------------------------------------------------------------------------------


def _parameters(pool: TensorPool, tensors: int, elements: int) -> list[torch.nn.Parameter]:
    made = [torch.nn.Parameter(pool.scratch("fp32", elements)) for _ in range(tensors)]
    for parameter in made:
        parameter.grad = pool.scratch("fp32", elements).add_(1.0)
    return made


def _update(what: str, tiny: bool) -> Callable[[TensorPool, str, _Sizes], KernelCall]:
    """AdamW or clipping, of one tensor of many elements or of many tiny tensors."""

    def prepare(pool: TensorPool, dtype: str, sizes: _Sizes) -> KernelCall:
        made = _parameters(pool, sizes[0], TINY) if tiny else _parameters(pool, 1, sizes[0])
        if what == "clip":
            return lambda: torch.nn.utils.clip_grad_norm_(made, 1.0)
        return torch.optim.AdamW(made, lr=1e-3, fused=True).step

    return prepare


# --- the list ---------------------------------------------------------------------------------------------------------

_WIDTHS = (32, 128, 512, 2048)
_GEMM = tuple(product((64, 512, 4096), _WIDTHS, _WIDTHS))
_HEADS = tuple(product((4, 32), (64, 256, 1024), (16, 32, 64, 128)))
_ROWS = tuple((n, h) for n, h in product((64, 512, 4096), (16, 128, 1024)))
_LOGITS = ((64, 64), (64, 1024), (64, 16384), (1024, 64), (1024, 1024), (16384, 64))
# up to 16 MiB: beyond HEAP_LARGEST fresh pages would be timed with the kernel
_FLAT = ((1 << 10,), (1 << 14,), (1 << 17,), (1 << 20,), (1 << 22,))
_THIRDS = tuple((3 * size,) for (size,) in _FLAT)  # three equal parts
_TENSORS = ((8,), (128,))
# the first size of a kernel is always timed: here that from which on pages are fresh
_BYTES = tuple((mib << 20,) for mib in (33, 1, 16, 31))


def _kernels() -> dict[str, Kernel]:
    found = {
        "engine": Kernel(engine, ((1,),)),
        "dispatch": Kernel(dispatch, ((1,),), divide_by=CHAIN),
        "add": Kernel(_add, _FLAT, TIMED_DTYPES),
        "accumulate": Kernel(_accumulate, _FLAT),
        "copy": Kernel(_copy, _FLAT, TIMED_DTYPES),
        "join": Kernel(_join, _THIRDS, TIMED_DTYPES),
        "sum_rows": Kernel(_sum_rows, _ROWS, TIMED_DTYPES),
        "fill": Kernel(_fill, _FLAT),
        "cast_down": Kernel(_cast_down, _FLAT, ("bf16",)),
        "cast_up": Kernel(_cast_up, _FLAT, ("bf16",)),
        "adamw": Kernel(_update("adamw", tiny=False), _FLAT),
        "adamw_tensors": Kernel(_update("adamw", tiny=True), _TENSORS),
        "clip": Kernel(_update("clip", tiny=False), _FLAT),
        "clip_tensors": Kernel(_update("clip", tiny=True), _TENSORS),
        "fresh": Kernel(fresh_pages, _BYTES),
        "refill": Kernel(refill, _BYTES),
    }
    pairs = {
        "layer_norm": (_layer_norm, _ROWS, ("fp32",)),
        "rms_norm": (_rms_norm, _ROWS, ("fp32",)),
        "gelu": (_gelu, _FLAT, TIMED_DTYPES),
        "swiglu": (_swiglu, _FLAT, TIMED_DTYPES),
        "rotary": (_rotary, _FLAT, TIMED_DTYPES),
        "loss": (_loss, _LOGITS, ("fp32",)),
        "embedding": (_embedding, _ROWS, ("fp32",)),
    }
    for name, (make, sizes, dtypes) in pairs.items():
        forward, backward = _pair(make)
        found |= {
            f"{name}_forward": Kernel(forward, sizes, dtypes),
            f"{name}_backward": Kernel(backward, sizes, dtypes),
        }
    # those that take most of the time last: if it gets short, the others are whole
    return found | {
        "gemm_forward": Kernel(_gemm_forward, _GEMM, TIMED_DTYPES),
        "gemm_input_gradient": Kernel(_gemm_input_gradient, _GEMM, TIMED_DTYPES),
        "gemm_weight_gradient": Kernel(_gemm_weight_gradient, _GEMM, TIMED_DTYPES),
        "attention_forward": Kernel(_attention_forward, _HEADS, TIMED_DTYPES),
        "attention_backward": Kernel(_attention_backward, _HEADS, TIMED_DTYPES),
    }


KERNELS = _kernels()
