"""One GPT whose options cover the presets: what the planner counts, as code that runs.

Written so that every machine saves the same bytes for backward: each linear layer casts its weight to the
compute type itself (no autocast), each norm's output is cast once, the residual stream stays in fp32, logits
are fp32 before the loss, and rotary embedding and RMSNorm are small autograd functions that save only what
they need. Shapes: B micro-batch, T sequence, h hidden, a heads, k key-value heads, d head_dim, V vocab.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from planner.model_config import ModelConfig

NORM_EPS = 1e-5
ROTARY_BASE = 10_000.0
INIT_STD = 0.02  # GPT-2's initialisation (Radford et al. 2019); projections into the residual are scaled down


class CastLinear(nn.Linear):
    """A linear layer that works in its input's type: the fp32 weight is cast on the way, as autocast would."""

    def forward(self, input: Tensor) -> Tensor:
        bias = None if self.bias is None else self.bias.to(input.dtype)
        return F.linear(input, self.weight.to(input.dtype), bias)


class LayerNorm(nn.Module):
    """LayerNorm over the last dimension in fp32, with or without bias (nn.LayerNorm's, same numbers)."""

    def __init__(self, width: int, bias: bool) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.bias = nn.Parameter(torch.zeros(width)) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        return F.layer_norm(x, self.weight.shape, self.weight, self.bias, NORM_EPS)


class _RMSNormFunction(torch.autograd.Function):
    """y = x / rms(x) * weight, saving x and 1/rms only; F.rms_norm keeps the normalised copy too on a CPU."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        inverse_rms = torch.rsqrt(x.square().mean(-1, keepdim=True).add_(NORM_EPS))
        ctx.save_for_backward(x, weight, inverse_rms)
        return (x * inverse_rms).mul_(weight)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor]:
        x, weight, inverse_rms = ctx.saved_tensors
        (grad,) = grads
        normalised = x * inverse_rms
        grad_weight = (grad * normalised).flatten(0, -2).sum(0)
        scaled = grad * weight
        shift = (scaled * normalised).mean(-1, keepdim=True)
        return (scaled.sub_(normalised.mul_(shift)).mul_(inverse_rms), grad_weight)


class RMSNorm(nn.Module):
    """RMSNorm over the last dimension in fp32 (Zhang and Sennrich 2019)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = _RMSNormFunction.apply(x, self.weight)  # type: ignore[no-untyped-call]
        return y


class _RotaryFunction(torch.autograd.Function):
    """Turn pairs (i, i + d/2) of x [B, T, heads, d] by the tables cos, sin [T, 1, d/2] in fp32; nothing saved."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        ctx.tables = (cos, sin)
        out, (left, right), (out_left, out_right) = _halves(x)
        # x * cos promotes to fp32 where x is bf16: angles at far positions need the mantissa
        out_left.copy_((left * cos).sub_(right * sin))
        out_right.copy_((left * sin).add_(right * cos))
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        cos, sin = ctx.tables
        out, (left, right), (out_left, out_right) = _halves(grads[0])
        out_left.copy_((left * cos).add_(right * sin))
        out_right.copy_((right * cos).sub_(left * sin))
        return out, None, None


def _halves(x: Tensor) -> tuple[Tensor, Sequence[Tensor], Sequence[Tensor]]:
    out = torch.empty_like(x, memory_format=torch.contiguous_format)
    return out, x.chunk(2, dim=-1), out.chunk(2, dim=-1)


class Attention(nn.Module):
    """Causal self-attention with one fused projection for queries, keys and values, grouped heads allowed."""

    def __init__(self, model: ModelConfig, checkpoint_core: bool) -> None:
        super().__init__()
        self.heads, self.kv_heads, self.head_dim = model.heads, model.kv_heads, model.head_dim
        self.rotary = model.position == "rotary"
        self.checkpoint_core = checkpoint_core
        width = model.heads * model.head_dim
        self.qkv = CastLinear(model.hidden, width + 2 * model.kv_heads * model.head_dim, bias=model.biases == "all")
        self.proj = CastLinear(width, model.hidden, bias=model.biases == "all")

    def forward(self, x: Tensor, cos: Tensor | None, sin: Tensor | None) -> Tensor:
        if self.checkpoint_core:
            # no dropout, hence no random state to keep
            y = checkpoint(self.core, self.qkv(x), cos, sin, use_reentrant=False, preserve_rng_state=False)
        else:
            y = self.core(self.qkv(x), cos, sin)
        out: Tensor = self.proj(y)
        return out

    def core(self, qkv: Tensor, cos: Tensor | None, sin: Tensor | None) -> Tensor:
        """qkv [B, T, (a + 2k) d] to the heads' output [B, T, a d]."""
        batch, length, _ = qkv.shape
        split = qkv.view(batch, length, self.heads + 2 * self.kv_heads, self.head_dim)
        query, key, value = torch.split(split, [self.heads, self.kv_heads, self.kv_heads], dim=2)
        if self.rotary:
            query = _RotaryFunction.apply(query, cos, sin)  # type: ignore[no-untyped-call]
            key = _RotaryFunction.apply(key, cos, sin)  # type: ignore[no-untyped-call]
        out = F.scaled_dot_product_attention(
            query.transpose(1, 2),
            key.transpose(1, 2),
            value.transpose(1, 2),
            is_causal=True,
            enable_gqa=self.kv_heads != self.heads,
        )
        return out.transpose(1, 2).reshape(batch, length, self.heads * self.head_dim)


class GeluMLP(nn.Module):
    """Two matrices with a tanh-approximated GELU between them (GPT-2)."""

    def __init__(self, model: ModelConfig) -> None:
        super().__init__()
        self.up = CastLinear(model.hidden, model.ffn, bias=model.biases == "all")
        self.down = CastLinear(model.ffn, model.hidden, bias=model.biases == "all")

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.down(F.gelu(self.up(x), approximate="tanh"))
        return out


class SwigluMLP(nn.Module):
    """silu(gate x) * (up x), then down (Shazeer 2020)."""

    def __init__(self, model: ModelConfig) -> None:
        super().__init__()
        self.gate = CastLinear(model.hidden, model.ffn, bias=model.biases == "all")
        self.up = CastLinear(model.hidden, model.ffn, bias=model.biases == "all")
        self.down = CastLinear(model.ffn, model.hidden, bias=model.biases == "all")

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.down(F.silu(self.gate(x)) * self.up(x))
        return out


class Block(nn.Module):
    """Pre-norm transformer block on an fp32 residual stream."""

    def __init__(self, model: ModelConfig, compute: torch.dtype, checkpoint_core: bool) -> None:
        super().__init__()
        self.compute = compute
        self.attention_norm = make_norm(model)
        self.attention = Attention(model, checkpoint_core)
        self.mlp_norm = make_norm(model)
        self.mlp = GeluMLP(model) if model.mlp == "gelu" else SwigluMLP(model)

    def forward(self, x: Tensor, cos: Tensor | None, sin: Tensor | None) -> Tensor:
        x = x + self.attention(self.attention_norm(x).to(self.compute), cos, sin)
        out: Tensor = x + self.mlp(self.mlp_norm(x).to(self.compute))
        return out


class SummedCrossEntropy(nn.Module):
    """Cross-entropy in nats, summed over the targets [B, T] that are not -100; logits [B, T, V] in any type."""

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        total: Tensor = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="sum")
        return total


class GPT(nn.Module):
    """The whole decoder; `forward` gives the summed loss, so that accumulation can weigh by tokens."""

    def __init__(self, model: ModelConfig, compute: torch.dtype, activation_checkpointing: str) -> None:
        super().__init__()
        self.model, self.compute = model, compute
        self.checkpoint_blocks = activation_checkpointing == "full"
        self.embedding = nn.Embedding(model.vocab, model.hidden)
        self.position = nn.Embedding(model.context, model.hidden) if model.position == "learned" else None
        core = activation_checkpointing == "selective"
        self.blocks = nn.ModuleList(Block(model, compute, core) for _ in range(model.layers))
        self.norm = make_norm(model)
        self.head = CastLinear(model.hidden, model.vocab, bias=False)
        if model.tied_embeddings:
            self.head.weight = self.embedding.weight
        self.loss = SummedCrossEntropy()
        self.tables: tuple[Tensor, Tensor] | None = None
        self.initialise()

    def initialise(self) -> None:
        """N(0, 0.02) everywhere, residual projections divided by sqrt(2 layers), biases 0 (GPT-2)."""
        for name, parameter in self.named_parameters():
            if name.endswith("bias"):
                nn.init.zeros_(parameter)
            elif parameter.dim() == 2:
                into_residual = name.endswith(("proj.weight", "down.weight"))
                std = INIT_STD / math.sqrt(2 * self.model.layers) if into_residual else INIT_STD
                nn.init.normal_(parameter, mean=0.0, std=std)

    def rotary_tables(self, length: int, device: torch.device) -> tuple[Tensor, Tensor]:
        """cos and sin [T, 1, d/2] in fp32, made once and kept: 4 T d bytes in all."""
        if self.tables is None or self.tables[0].shape[0] != length or self.tables[0].device != device:
            half = self.model.head_dim // 2
            speed = ROTARY_BASE ** (-torch.arange(half, device=device, dtype=torch.float32) / half)
            angle = torch.arange(length, device=device, dtype=torch.float32)[:, None, None] * speed
            self.tables = (angle.cos(), angle.sin())
        return self.tables

    def hidden_states(self, ids: Tensor) -> Tensor:
        """ids [B, T] to the normed last hidden states [B, T, h] in the compute type."""
        length = ids.shape[1]
        x = self.embedding(ids)
        cos = sin = None
        if self.position is not None:
            x = x + self.position(torch.arange(length, device=ids.device))
        else:
            cos, sin = self.rotary_tables(length, ids.device)
        for block in self.blocks:
            if self.checkpoint_blocks:
                x = checkpoint(block, x, cos, sin, use_reentrant=False, preserve_rng_state=False)
            else:
                x = block(x, cos, sin)
        out: Tensor = self.norm(x).to(self.compute)
        return out

    def forward(self, ids: Tensor, targets: Tensor) -> Tensor:
        """Summed cross-entropy in nats over the targets [B, T] that are not -100."""
        # one expression each: a name would keep the bf16 logits alive beside their fp32 copy
        hidden = self.hidden_states(ids)
        total: Tensor = self.loss(self.head(hidden).float(), targets)
        return total

    def logits(self, ids: Tensor) -> Tensor:
        """Next-token logits [B, T, V] in fp32."""
        out: Tensor = self.head(self.hidden_states(ids)).float()
        return out


def make_norm(model: ModelConfig) -> nn.Module:
    """The norm that the config names."""
    return (
        LayerNorm(model.hidden, model.norm_parameters == "gain+bias")
        if model.norm == "layernorm"
        else RMSNorm(model.hidden)
    )


COMPUTE_TYPES = {"bf16": torch.bfloat16, "fp32": torch.float32}
