"""Which kernel PyTorch takes for attention: asked for each kind of block before its first call, and logged.

The flash kernel adds no mask, and the memory-efficient one wants as many key heads as query heads. With both a mask and
grouped heads only cuDNN's kernel is left, on the cards where PyTorch prefers it; elsewhere it would write the scores
out, in fp32. There keys and values are repeated for every query head first, which keeps the memory-efficient kernel.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor
from torch.nn.attention import SDPBackend

KERNEL_NAMES = {
    SDPBackend.MATH: "written out (math)",
    SDPBackend.FLASH_ATTENTION: "flash",
    SDPBackend.EFFICIENT_ATTENTION: "memory-efficient",
    SDPBackend.CUDNN_ATTENTION: "cuDNN",
}

REPEATED = "; keys and values are repeated for all query heads, which the plan does not count"


@dataclass(frozen=True, slots=True)
class ChosenKernel:
    """The name of a kernel, None if PyTorch cannot be asked; whether keys and values are repeated for it."""

    name: str | None
    repeats: bool = False


def choose_kernel(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, dropout: float) -> ChosenKernel:
    """The kernel for these [B, heads, T, d] tensors. It looks at shapes and types; nothing waits."""
    hard = _on_gpu(query) and key.shape[1] != query.shape[1] and mask is not None
    if torch.compiler.is_compiling():
        return ChosenKernel(None, hard)  # a compiler's tensors have no kernel to be asked about
    if query.is_meta or isinstance(query, FakeTensor):
        return ChosenKernel(None)
    found = _asked(query, key, value, mask, dropout)
    if not (hard and found == SDPBackend.MATH):
        return ChosenKernel(KERNEL_NAMES.get(found))
    all_keys, all_values = (t[:, :1].expand(-1, query.shape[1], -1, -1) for t in (key, value))  # views: enough to ask
    return ChosenKernel(KERNEL_NAMES.get(_asked(query, all_keys, all_values, mask, dropout)), repeats=True)


def with_all_heads(key_or_value: Tensor, heads: int) -> Tensor:
    """[B, k, T, d] to [B, heads, T, d]: each head once for every query head that reads it."""
    return key_or_value.repeat_interleave(heads // key_or_value.shape[1], dim=1)


def kernel_lines(chosen: Iterable[ChosenKernel]) -> list[str]:
    """One line for the log for each kernel that blocks use, with how many."""
    return [
        f"attention kernel of {count} block{'' if count == 1 else 's'}: {kernel.name}"
        f"{REPEATED if kernel.repeats else ''}"
        for kernel, count in Counter(kernel for kernel in chosen if kernel.name).items()
    ]


def _on_gpu(tensor: Tensor) -> bool:
    return tensor.is_cuda


def _asked(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, dropout: float) -> SDPBackend:
    grouped = key.shape[1] != query.shape[1]
    return SDPBackend(torch._fused_sdp_choice(query, key, value, mask, dropout, mask is None, enable_gqa=grouped))
