"""Causal self-attention: plain or grouped heads.

Shapes: B micro-batch, T sequence, h hidden, a query heads, k key-value heads, d head_dim.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.checkpoint import checkpoint

from planner.config import TrainingConfig
from planner.model_config import ModelConfig
from reference_trainer.layers import make_linear, make_norm, rotate
from reference_trainer.positions import Tables


class AttentionCore(nn.Module):
    """What attention does between its projections; here are the choices that all kinds of attention share.

    attention_kernel "flash" is PyTorch's own choice: the flash kernel on a CPU, without dropout; on CUDA flash, or the
    memory-efficient one where a mask is added. It saves queries, keys, values, output and a log-sum-exp per head
    and token. "math" is softmax(Q K^T) V written out, in fp32: it saves the T x T weights of every head, and
    queries, keys and values widened to fp32 and to all heads.
    """

    def __init__(self, model: ModelConfig, training: TrainingConfig, block: int) -> None:
        super().__init__()
        nth = block + 1  # "every k-th block" counts from one
        every = model.no_position_every
        self.rotary = model.position == "rotary" and not (every and nth % every == 0)
        every = model.full_attention_every
        self.windowed = model.sliding_window is not None and not (every and nth % every == 0)
        self.math = training.attention_kernel == "math"
        self.dropout = training.dropout
        self.recomputed = training.activation_checkpointing == "selective"

    def attend(self, query: Tensor, key: Tensor, value: Tensor, tables: Tables) -> Tensor:
        """query [B, T, a, d], key [B, T, k, d], value [B, T, k, e] to [B, T, a e]."""
        if self.math:
            with sdpa_kernel(SDPBackend.MATH):
                out = self._attend(query, key, value, tables.windowed if self.windowed else tables.full)
        else:
            out = self._attend(query, key, value, tables.windowed if self.windowed else tables.full)
        return out.transpose(1, 2).flatten(2)

    def _attend(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
        return F.scaled_dot_product_attention(
            query.transpose(1, 2),
            key.transpose(1, 2),
            value.transpose(1, 2),
            attn_mask=mask,
            dropout_p=self.dropout if self.training else 0.0,
            is_causal=mask is None,
            enable_gqa=key.shape[2] != query.shape[2],
        )


class Attention(AttentionCore):
    """One fused projection for queries, keys and values, grouped heads allowed."""

    def __init__(self, model: ModelConfig, training: TrainingConfig, block: int) -> None:
        super().__init__(model, training, block)
        self.heads, self.kv_heads, self.head_dim = model.heads, model.kv_heads, model.head_dim
        width, key_width = model.heads * model.head_dim, model.kv_heads * model.head_dim
        self.qkv = make_linear(training, model.hidden, width + 2 * key_width, model.biases != "none")
        self.whole_norm = model.qk_norm == "full"
        self.query_norm = self.key_norm = None
        if model.qk_norm != "none":
            self.query_norm = make_norm(model, width if self.whole_norm else model.head_dim)
            self.key_norm = make_norm(model, key_width if self.whole_norm else model.head_dim)
        self.proj = make_linear(training, width, model.hidden, model.biases in ("attention", "all"))

    def forward(self, x: Tensor, tables: Tables) -> Tensor:
        """x [B, T, h] in the compute type to [B, T, h]."""
        if self.recomputed:
            keep = self.dropout > 0  # the random state: the same weights are dropped again
            y = checkpoint(self.core, self.qkv(x), tables, use_reentrant=False, preserve_rng_state=keep)
        else:
            y = self.core(self.qkv(x), tables)
        out: Tensor = self.proj(y)
        return out

    def core(self, qkv: Tensor, tables: Tables) -> Tensor:
        """qkv [B, T, (a + 2k) d] to the heads' output [B, T, a d]."""
        batch, length, _ = qkv.shape
        split = qkv.view(batch, length, self.heads + 2 * self.kv_heads, self.head_dim)
        query, key, value = torch.split(split, [self.heads, self.kv_heads, self.kv_heads], dim=2)
        if self.query_norm is not None and self.key_norm is not None:
            query, key = self.normed(self.query_norm, query), self.normed(self.key_norm, key)
        if self.rotary:
            assert tables.cos is not None and tables.sin is not None
            query = rotate(query, tables.cos, tables.sin)
            key = rotate(key, tables.cos, tables.sin)
        return self.attend(query, key, value, tables)

    def normed(self, norm: nn.Module, x: Tensor) -> Tensor:
        """Norm of [B, T, heads, d], over each head or over all of them."""
        out: Tensor = norm(x.flatten(2)).view_as(x) if self.whole_norm else norm(x)
        return out
