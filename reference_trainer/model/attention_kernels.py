"""Which kernel PyTorch takes for attention: asked for each kind of block before its first call, and logged.

The flash kernel adds no mask and computes in 16 bits; the memory-efficient one wants as many key heads as query heads.
With grouped heads and a mask, or fp32, only cuDNN's kernel is left, in 16 bits and on the cards where PyTorch prefers
it; elsewhere PyTorch would write the scores out, in fp32. There keys and values are repeated for every query head
first, which keeps the memory-efficient kernel. `planner/counts/attention.py` plans with the same rule.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from planner.config.attention import adds_a_mask
from planner.config.run import RunConfig
from planner.counts.run import recipe_of
from planner.errors import ConfigError
from reference_trainer.device.device import device_name
from reference_trainer.device.dtypes import DTYPES

KERNEL_NAMES = {
    SDPBackend.MATH: "written out (math)",
    SDPBackend.FLASH_ATTENTION: "flash",
    SDPBackend.EFFICIENT_ATTENTION: "memory-efficient",
    SDPBackend.CUDNN_ATTENTION: "cuDNN",
}

REPEATED = "; keys and values are repeated for all query heads"
NAMED_KERNELS = {
    "flash-only": SDPBackend.FLASH_ATTENTION,
    "efficient": SDPBackend.EFFICIENT_ATTENTION,
    "cudnn": SDPBackend.CUDNN_ATTENTION,
    "math": SDPBackend.MATH,
}  # by the config's attention_kernel; "flash" is PyTorch's choice


@dataclass(frozen=True, slots=True)
class ChosenKernel:
    """The name of a kernel, None if PyTorch cannot be asked; whether keys and values are repeated for it."""

    name: str | None
    repeats: bool = False


def only_kernel(name: str) -> AbstractContextManager[None]:
    """While it is open, PyTorch has no attention but the one of this attention_kernel, if it names one."""
    backend = NAMED_KERNELS.get(name)
    return nullcontext() if backend is None else sdpa_kernel(backend)


def choose_kernel(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, dropout: float, name: str = "flash"
) -> ChosenKernel:
    """The kernel for these [B, heads, T, d] tensors under the config's attention_kernel; nothing waits.

    Raises RuntimeError if the kernel that is named does not take them, with a warning that says why.
    """
    grouped = key.shape[1] != query.shape[1]
    hard = grouped and _on_gpu(query) and (mask is not None or query.dtype == torch.float32)
    if name != "flash":
        hard = grouped and name == "efficient"
    if torch.compiler.is_compiling():
        return ChosenKernel(None, hard)  # a compiler's tensors have no kernel to be asked about
    if query.is_meta or isinstance(query, FakeTensor):
        return ChosenKernel(None)
    with only_kernel(name):
        found = None if hard and name == "efficient" else _asked(query, key, value, mask, dropout)
        if not hard or found not in (None, SDPBackend.MATH):
            return ChosenKernel(None if found is None else KERNEL_NAMES.get(found))
        all_keys, all_values = (t[:, :1].expand(-1, query.shape[1], -1, -1) for t in (key, value))  # views are enough
        return ChosenKernel(KERNEL_NAMES.get(_asked(query, all_keys, all_values, mask, dropout)), repeats=True)


def refuse_kernel(config: RunConfig, device: torch.device) -> None:
    """Raises ConfigError if this device or this PyTorch has not the attention kernel that the config names.

    PyTorch is asked with tensors in the shape of one sequence, with a mask if some block adds one.
    """
    name, model, t = config.training.attention_kernel, config.model, config.training
    if name not in ("flash-only", "efficient", "cudnn"):
        return
    dtype = DTYPES[recipe_of(config).compute_dtype]
    kv_heads = model.heads if model.mla is not None else model.kv_heads
    masks = (
        [None]
        if not adds_a_mask(model, t)
        else [torch.zeros((), dtype=dtype, device=device).expand(1, 1, t.seq, t.seq)]
    )
    for mask in masks:
        query, key = (
            torch.empty((1, heads, t.seq, model.head_dim), dtype=dtype, device=device, requires_grad=True)
            for heads in (model.heads, kv_heads)
        )
        with warnings.catch_warnings(record=True) as reasons:
            warnings.simplefilter("always")
            try:
                choose_kernel(query, key, key, mask, t.dropout, name)
            except RuntimeError as error:
                said = [str(r.message).partition(" (Triggered")[0] for r in reasons] or [str(error)]
                raise ConfigError(
                    f'attention_kernel = "{name}" does not run on {device_name(device)}',
                    why=said[-1],
                    remedy='take attention_kernel = "flash": PyTorch chooses a kernel that this device has',
                ) from None


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
