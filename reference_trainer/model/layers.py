"""The small layers of the reference model: linear with its casts, norms, rotary embedding, dropout.

Each saves for backward what its formula needs and no more, the same bytes on CPU and CUDA. Norms compute in fp32
and return the dtype of their input.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from planner.config.model import ModelConfig
from planner.config.run import TrainingConfig
from planner.counts.roles import Role
from reference_trainer.model.roles import assign_roles


class CastLinear(nn.Linear):
    """A linear layer that computes in its input's dtype: it casts the weight, as autocast does."""

    def forward(self, input: Tensor) -> Tensor:
        bias = None if self.bias is None else self.bias.to(input.dtype)
        return F.linear(input, self.weight.to(input.dtype), bias)


def make_linear(
    training: TrainingConfig, inputs: int, outputs: int, bias: bool = False, role: Role = Role.MATRIX
) -> nn.Linear:
    """A linear layer with explicit casts, or one that relies on autocast. role: of its weight."""
    kind = nn.Linear if training.runtime == "autocast" else CastLinear
    return assign_roles(kind(inputs, outputs, bias=bias), weight=role, bias=Role.BIAS)


def make_table(rows: int, width: int) -> nn.Embedding:
    """The table of token or position embeddings."""
    return assign_roles(nn.Embedding(rows, width), weight=Role.TABLE)


class LayerNorm(nn.Module):
    """LayerNorm over the last dimension (nn.LayerNorm's numbers) with gain and bias, gain alone, or neither."""

    def __init__(self, width: int, gain: bool, bias: bool, eps: float) -> None:
        super().__init__()
        self.width, self.eps = width, eps
        self.weight = nn.Parameter(torch.ones(width)) if gain else None
        self.bias = nn.Parameter(torch.zeros(width)) if bias else None
        assign_roles(self, weight=Role.GAIN, bias=Role.BIAS)

    def forward(self, x: Tensor) -> Tensor:
        if x.dtype == torch.float32:
            return F.layer_norm(x, (self.width,), self.weight, self.bias, self.eps)
        y: Tensor = _NarrowLayerNormFunction.apply(x, self.weight, self.bias, self.eps)  # type: ignore[no-untyped-call]
        return y


class _NarrowLayerNormFunction(torch.autograd.Function):
    """LayerNorm of bf16 or fp16 x computed in fp32, saving x as it is and fp32 statistics.

    F.layer_norm keeps the statistics in two bytes on a CPU and four on CUDA, and CUDA's refuses fp32 gains.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float) -> Tensor:
        gain, shift = (None if p is None else p.float() for p in (weight, bias))
        out, mean, inverse_std = torch.native_layer_norm(x.float(), x.shape[-1:], gain, shift, eps)
        ctx.save_for_backward(x, weight, bias, mean, inverse_std)
        return out.to(x.dtype)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor | None, Tensor | None, None]:
        x, weight, bias, mean, inverse_std = ctx.saved_tensors
        wide_weight, wide_bias = (None if p is None else p.float() for p in (weight, bias))
        into, gain, shift = torch.ops.aten.native_layer_norm_backward(
            grads[0].float(), x.float(), x.shape[-1:], mean, inverse_std, wide_weight, wide_bias,
            [True, weight is not None, bias is not None],
        )  # fmt: skip
        return (
            into.to(x.dtype),
            None if weight is None else gain.to(weight.dtype),
            None if bias is None else shift.to(bias.dtype),
            None,
        )


class RMSNorm(nn.Module):
    """RMSNorm over the last dimension (Zhang and Sennrich 2019), with a gain or without."""

    def __init__(self, width: int, gain: bool, eps: float) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(width)) if gain else None
        assign_roles(self, weight=Role.GAIN)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = _RMSNormFunction.apply(x, self.weight, self.eps)  # type: ignore[no-untyped-call]
        return y


class _RMSNormFunction(torch.autograd.Function):
    """y = x / rms(x) * weight in fp32, saving x and 1/rms only; F.rms_norm keeps the normalised copy too on a CPU."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor | None, eps: float) -> Tensor:
        inverse_rms = torch.rsqrt(x.float().square().mean(-1, keepdim=True).add_(eps))
        ctx.save_for_backward(x, weight, inverse_rms)
        y = x * inverse_rms  # fp32, whatever x is
        return (y if weight is None else y.mul_(weight)).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor | None, None]:
        x, weight, inverse_rms = ctx.saved_tensors
        grad = grads[0].float()
        normalised = x * inverse_rms
        grad_weight = None if weight is None else (grad * normalised).flatten(0, -2).sum(0).to(weight.dtype)
        scaled = grad.clone() if weight is None else grad * weight
        shift = (scaled * normalised).mean(-1, keepdim=True)
        return scaled.sub_(normalised.mul_(shift)).mul_(inverse_rms).to(x.dtype), grad_weight, None


def make_norm(model: ModelConfig, width: int) -> nn.Module:
    """The norm that the config names, over `width` channels."""
    gain = model.norm_parameters != "none"
    if model.norm == "rmsnorm":
        return RMSNorm(width, gain, model.norm_eps)
    return LayerNorm(width, gain, model.norm_parameters == "gain+bias", model.norm_eps)


class _RotaryFunction(torch.autograd.Function):
    """Rotate pairs (i, i + r/2) of the first r channels of x [B, T, heads, d]; nothing is saved.

    cos, sin: fp32 [T, 1, r/2]. The channels from r on are copied.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        ctx.tables = (cos, sin)
        out, (left, right), (out_left, out_right) = _halves(x, cos)
        # x * cos promotes to fp32 where x is bf16: angles at far positions need the mantissa
        out_left.copy_((left * cos).sub_(right * sin))
        out_right.copy_((left * sin).add_(right * cos))
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        cos, sin = ctx.tables
        out, (left, right), (out_left, out_right) = _halves(grads[0], cos)
        out_left.copy_((left * cos).add_(right * sin))
        out_right.copy_((right * cos).sub_(left * sin))
        return out, None, None


def _halves(x: Tensor, cos: Tensor) -> tuple[Tensor, Sequence[Tensor], Sequence[Tensor]]:
    """An output with the channels from rope_dim on copied, and the two rotary halves of x and of that output."""
    rope_dim = 2 * cos.shape[-1]
    out = torch.empty_like(x, memory_format=torch.contiguous_format)
    if rope_dim < x.shape[-1]:
        out[..., rope_dim:].copy_(x[..., rope_dim:])
    return out, x[..., :rope_dim].chunk(2, dim=-1), out[..., :rope_dim].chunk(2, dim=-1)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary embedding (Su et al. 2021) of x [B, T, heads, d] by `rotary_angles` of `positions.py`."""
    y: Tensor = _RotaryFunction.apply(x, cos, sin)  # type: ignore[no-untyped-call]
    return y


class Dropout(nn.Module):
    """Dropout with a mask of one byte per element on every device: F.dropout's has the input's dtype on a CPU."""

    def __init__(self, share: float) -> None:
        super().__init__()
        self.share = share

    def forward(self, x: Tensor) -> Tensor:
        return torch.native_dropout(x, self.share, True)[0] if self.training and self.share else x
