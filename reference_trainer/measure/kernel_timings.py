"""The kernels of a training step, each prepared to be timed alone at a given size.

Each entry of `kernels_on` has the dtypes and sizes of a kernel, and prepares one call.
A forward kernel runs without autograd, a backward one through `torch.autograd.grad` on a kept graph.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import product
from math import prod
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
from reference_trainer.measure.kernel_pool import POOL_ELEMENTS, TIMED_DTYPES, Kernel, KernelCall, TensorPool
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


@dataclass(frozen=True, slots=True)
class _Grids:
    """The sizes timed on a kind of device, each from small to large."""

    gemm: tuple[_Sizes, ...]
    heads: tuple[_Sizes, ...]
    rows: tuple[_Sizes, ...]
    logits: tuple[_Sizes, ...]
    flat: tuple[_Sizes, ...]
    fresh: tuple[_Sizes, ...]


_TENSORS = ((8,), (128,))
_FLAT = (1 << 10, 1 << 14, 1 << 17, 1 << 20, 1 << 22)
_CPU = _Grids(
    gemm=tuple(product((64, 512, 4096), *[(32, 128, 512, 2048)] * 2)),
    heads=tuple(product((4, 32), (64, 256, 1024), (16, 32, 64, 128))),
    rows=tuple(product((64, 512, 4096), (16, 128, 1024))),
    logits=((64, 64), (64, 1024), (64, 16384), (1024, 64), (1024, 1024), (16384, 64)),
    # up to 16 MiB: beyond HEAP_LARGEST fresh pages would be timed with the kernel
    flat=tuple((size,) for size in _FLAT),
    # the first size of a kernel is always timed: here that from which on pages are fresh
    fresh=tuple((mib << 20,) for mib in (33, 1, 16, 31)),
)
# As large as a step's own tensors: rates measured on 4M elements, in a GPU's cache, are not those of its memory.
_CUDA = _Grids(
    gemm=tuple(product((64, 1024, 16384), *[(128, 768, 4096, 16384, 65536)] * 2)),
    heads=tuple(product((16, 256), (256, 1024, 4096), (64, 128))),
    rows=tuple(product((64, 1024, 16384, 65536), (128, 1024, 4096))),
    logits=tuple(product((64, 1024, 8192, 16384), (1024, 16384, 65536))),
    flat=tuple((size,) for size in (*_FLAT, 1 << 24, 1 << 26, 1 << 28, 1 << 30)),
    fresh=((33 << 20,), (1 << 30,)),
)
_MEMORY_FRACTION = 1 / 4  # of a GPU's memory that one timing may take
# tensors as large as the sizes say that a kernel holds, its gradients and what it allocates included: at most
_TENSORS_OF_LOSS, _TENSORS_OF_ATTENTION, _TENSORS_OF_OTHERS = 5, 10, 6


def kernels_on(device: torch.device) -> dict[str, Kernel]:
    """The kernels that are timed on a device, with the sizes that its memory holds."""
    if device.type != "cuda":
        return _kernels(_CPU)
    most = torch.cuda.get_device_properties(device).total_memory * _MEMORY_FRACTION
    found = _kernels(_CUDA) | {"launch": Kernel(_add, ((1 << 10,),), on_host=True)}
    return {
        name: replace(kernel, sizes=tuple(size for size in kernel.sizes if bytes_of(name, size) <= most))
        for name, kernel in found.items()
    }


def pool_elements(device: torch.device) -> int:
    """How many random numbers the timings share: on a GPU a tenth of its memory holds all of them."""
    if device.type != "cuda":
        return POOL_ELEMENTS
    bytes_each = 2 * (4 + 2)  # fp32 and bf16, to read and to write
    return int(torch.cuda.get_device_properties(device).total_memory / 10 / bytes_each)


def bytes_of(kernel: str, sizes: _Sizes) -> int:
    """At most so many bytes are held while a kernel is timed at these sizes, in fp32."""
    if kernel in ("fresh", "refill"):
        return sizes[0]
    if kernel.startswith("gemm"):
        n, inputs, outputs = sizes
        return 4 * (n * inputs + inputs * outputs + n * outputs)
    tensors = {"loss": _TENSORS_OF_LOSS, "attention": _TENSORS_OF_ATTENTION}.get(
        kernel.split("_")[0], _TENSORS_OF_OTHERS
    )
    return 4 * tensors * prod(sizes)


def _kernels(grids: _Grids) -> dict[str, Kernel]:
    flat, rows = grids.flat, grids.rows
    thirds = tuple((3 * size,) for (size,) in flat)  # three equal parts
    found = {
        "engine": Kernel(engine, ((1,),), on_host=True),
        "dispatch": Kernel(dispatch, ((1,),), divide_by=CHAIN, on_host=True),
        "add": Kernel(_add, flat, TIMED_DTYPES),
        "accumulate": Kernel(_accumulate, flat),
        "copy": Kernel(_copy, flat, TIMED_DTYPES),
        "join": Kernel(_join, thirds, TIMED_DTYPES),
        "sum_rows": Kernel(_sum_rows, rows, TIMED_DTYPES),
        "fill": Kernel(_fill, flat),
        "cast_down": Kernel(_cast_down, flat, ("bf16",)),
        "cast_up": Kernel(_cast_up, flat, ("bf16",)),
        "adamw": Kernel(_update("adamw", tiny=False), flat),
        "adamw_tensors": Kernel(_update("adamw", tiny=True), _TENSORS),
        "clip": Kernel(_update("clip", tiny=False), flat),
        "clip_tensors": Kernel(_update("clip", tiny=True), _TENSORS),
        "fresh": Kernel(fresh_pages, grids.fresh),
        "refill": Kernel(refill, grids.fresh),
    }
    pairs = {
        "layer_norm": (_layer_norm, rows, ("fp32",)),
        "rms_norm": (_rms_norm, rows, ("fp32",)),
        "gelu": (_gelu, flat, TIMED_DTYPES),
        "swiglu": (_swiglu, flat, TIMED_DTYPES),
        "rotary": (_rotary, flat, TIMED_DTYPES),
        "loss": (_loss, grids.logits, ("fp32",)),
        "embedding": (_embedding, rows, ("fp32",)),
    }
    for name, (make, sizes, dtypes) in pairs.items():
        forward, backward = _pair(make)
        found |= {
            f"{name}_forward": Kernel(forward, sizes, dtypes),
            f"{name}_backward": Kernel(backward, sizes, dtypes),
        }
    # those that take most of the time last: if it gets short, the others are whole
    return found | {
        "gemm_forward": Kernel(_gemm_forward, grids.gemm, TIMED_DTYPES),
        "gemm_input_gradient": Kernel(_gemm_input_gradient, grids.gemm, TIMED_DTYPES),
        "gemm_weight_gradient": Kernel(_gemm_weight_gradient, grids.gemm, TIMED_DTYPES),
        "attention_forward": Kernel(_attention_forward, grids.heads, TIMED_DTYPES),
        "attention_backward": Kernel(_attention_backward, grids.heads, TIMED_DTYPES),
    }
