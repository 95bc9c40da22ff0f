"""Products of rows sorted by expert, each by its expert's matrix: one kernel where PyTorch has it, else a loop.

PyTorch's grouped product reads where each expert's rows end on the device, so that the host does not wait; the loop
waits once a layer for the counts. Both save the same for backward and allocate the same bytes in the same order.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor

# under the public name since PyTorch 2.10
GROUPED_MM: Any = getattr(F, "grouped_mm", None)
ALIGNED_BYTES = 16  # rows of both operands, for the kernels of a GPU


def has_grouped_kernel(x: Tensor, weight: Tensor) -> bool:
    """Whether PyTorch multiplies x [m, K] with weight [E, K, M] in one kernel, forward and backward.

    On a GPU it wants bf16, compute capability 8.0 and rows of whole 16 bytes; on a processor any type but fp64.
    """
    if GROUPED_MM is None or _has_no_contents(x):
        return False
    if not x.is_cuda:
        return x.dtype in (torch.float32, torch.bfloat16, torch.float16)
    rows = (size * x.element_size() % ALIGNED_BYTES == 0 for size in weight.shape[1:])
    return x.dtype == torch.bfloat16 and torch.cuda.get_device_capability(x.device) >= (8, 0) and all(rows)


def grouped_linear(x: Tensor, weight: Tensor, ends: Tensor) -> Tensor:
    """x [m, K], sorted by expert, times weight [E, K, M]: [m, M]; ends [E] int32: where each expert's rows end."""
    out: Tensor = _GroupedLinearFunction.apply(x, weight, ends)  # type: ignore[no-untyped-call]
    return out


class _GroupedLinearFunction(torch.autograd.Function):
    """The product, and in backward the gradients of rows and matrices; an expert without rows gets zeros."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, ends: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight, ends)
        if has_grouped_kernel(x, weight):
            out: Tensor = GROUPED_MM(x, weight, offs=ends)
            return out
        out, rows = x.new_empty(x.shape[0], weight.shape[2]), rows_per_expert(ends, x.shape[0])
        for part, matrix, into in zip(torch.split(x, rows), weight, torch.split(out, rows), strict=True):
            torch.mm(part, matrix, out=into)
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None]:
        x, weight, ends = ctx.saved_tensors
        (grad,) = grads
        if has_grouped_kernel(x, weight):
            to_x = GROUPED_MM(grad.contiguous(), weight.transpose(1, 2), offs=ends)
            to_weight = GROUPED_MM(x.t(), grad.contiguous(), offs=ends)
            if x.is_cuda:  # PyTorch's tests do not say what its kernel writes for an expert without rows
                none = torch.diff(ends, prepend=ends.new_zeros(1)) == 0
                to_weight.masked_fill_(none[:, None, None], 0.0)
            return to_x, to_weight, None
        to_x, to_weight = torch.empty_like(x), torch.empty_like(weight)
        rows = rows_per_expert(ends, x.shape[0])
        parts = (torch.split(t, rows) for t in (x, grad, to_x))
        for part, g, into, matrix, into_matrix in zip(*parts, weight, to_weight, strict=True):
            torch.mm(g, matrix.t(), out=into)
            torch.mm(part.t(), g, out=into_matrix)  # of no rows: zeros
        return to_x, to_weight, None


def rows_per_expert(ends: Tensor, rows: int) -> list[int]:
    """How many of the rows each expert has: the host waits; of tensors without contents, as evenly as possible."""
    if _has_no_contents(ends):
        least, more = divmod(rows, ends.shape[0])
        return [least + (expert < more) for expert in range(ends.shape[0])]
    counted: list[int] = ends.tolist()
    return [end - begin for begin, end in zip([0, *counted], counted, strict=False)]


def _has_no_contents(x: Tensor) -> bool:
    """A tensor of a replay or on the meta device; PyTorch's description of its own kernel knows bf16 alone."""
    return x.is_meta or isinstance(x, FakeTensor)
