"""Causal self-attention: plain or grouped heads, or keys and values from one latent.

Shapes: B micro-batch, T sequence, h hidden, a query heads, k key-value heads, d head_dim.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from planner.config.model import ModelConfig
from planner.config.run import TrainingConfig
from planner.counts.roles import Role
from planner.counts.shape import has_rotary, has_window, shape_of
from reference_trainer.model.attention_kernels import ChosenKernel, choose_kernel, only_kernel, with_all_heads
from reference_trainer.model.document_masks import flexible_attention
from reference_trainer.model.layers import RMSNorm, make_linear, make_norm, rotate
from reference_trainer.model.positions import PositionTables


class AttentionCore(nn.Module):
    """Attention between its projections: the options that all kinds of attention share.

    attention_kernel "flash" is PyTorch's own choice (attention_kernels.py). On a CPU it is the flash kernel, with
    or without a mask, and "math" with dropout. On CUDA it is cuDNN's where PyTorch prefers it, else flash; with a mask
    or in fp32, which flash does not take, the memory-efficient one. "flash-only", "efficient" and "cudnn" are this one.
    All save queries, keys, values, the mask, output and a log-sum-exp per head and token; keys and values may have been
    repeated for all query heads. "math" is softmax(Q K^T) V in separate operators, in fp32: it saves the T x T weights
    of every head, and queries, keys and values widened to fp32 and to all heads. "flex" is FlexAttention, for document
    masking on CUDA.
    """

    def __init__(self, model: ModelConfig, training: TrainingConfig, block: int) -> None:
        super().__init__()
        self.rotary, self.windowed = has_rotary(model, block), has_window(model, block)
        self.kernel_name, self.math = training.attention_kernel, training.attention_kernel == "math"
        self.dropout = training.dropout
        self.recomputed = training.activation_checkpointing == "selective"
        self.kernels: dict[bool, ChosenKernel] = {}  # in training or not: dropout is in training only
        self.score_scale: float | None = None  # PyTorch's own: 1 / sqrt(d)

    def attend(self, query: Tensor, key: Tensor, value: Tensor, tables: PositionTables) -> Tensor:
        """query [B, T, a, d], key and value [B, T, k, d or another width] to [B, T, a, that width]."""
        blocks = tables.windowed_block_mask if self.windowed else tables.full_block_mask
        if blocks is not None:
            parts = (query.transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2))
            return flexible_attention(*parts, blocks, self.score_scale).transpose(1, 2)
        mask, dropout = tables.windowed if self.windowed else tables.full, self.dropout if self.training else 0.0
        query, key, value = query.transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2)
        with only_kernel(self.kernel_name):
            if self.kernel(query, key, value, mask, dropout).repeats:
                key, value = (with_all_heads(t, query.shape[1]) for t in (key, value))
            return F.scaled_dot_product_attention(
                query,
                key,
                value,
                attn_mask=mask,
                dropout_p=dropout,
                is_causal=mask is None,
                scale=self.score_scale,
                enable_gqa=key.shape[1] != query.shape[1],
            ).transpose(1, 2)

    def kernel(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, dropout: float) -> ChosenKernel:
        """The kernel for these tensors, asked for once: their shapes do not change during a run."""
        found = self.kernels.get(self.training)
        if found is None:
            found = choose_kernel(query, key, value, mask, dropout, self.kernel_name)
            if found.name is not None:
                self.kernels[self.training] = found
        return found

    def rotated(self, x: Tensor, tables: PositionTables) -> Tensor:
        """[B, T, heads, d] with rotary embedding, in the blocks that have it."""
        if not self.rotary:
            return x
        cos, sin = tables.cos, tables.sin
        if self.windowed and tables.local_cos is not None:
            cos, sin = tables.local_cos, tables.local_sin
        assert cos is not None and sin is not None
        return rotate(x, cos, sin)

    def run(self, core: Callable[..., Tensor], *inputs: Tensor | PositionTables) -> Tensor:
        """`core` of the inputs; under selective checkpointing only the inputs are saved."""
        if not self.recomputed:
            return core(*inputs)
        keep = self.dropout > 0  # the random state: the same weights are dropped again
        out: Tensor = checkpoint(core, *inputs, use_reentrant=False, preserve_rng_state=keep)
        return out


class Attention(AttentionCore):
    """One fused projection for queries, keys and values, grouped heads allowed."""

    def __init__(self, model: ModelConfig, training: TrainingConfig, block: int) -> None:
        super().__init__(model, training, block)
        s = shape_of(model)
        self.heads, self.kv_heads, self.head_dim = model.heads, model.kv_heads, model.head_dim
        width, key_width = model.heads * model.head_dim, model.kv_heads * model.head_dim
        self.qkv = make_linear(training, model.hidden, width + 2 * key_width, bool(s.qkv_bias))
        self.norm_all_heads = model.qk_norm == "full"
        self.query_norm = self.key_norm = None
        if model.qk_norm != "none":
            self.query_norm = make_norm(model, width if self.norm_all_heads else model.head_dim)
            self.key_norm = make_norm(model, key_width if self.norm_all_heads else model.head_dim)
        self.proj = make_linear(training, width, model.hidden, bool(s.proj_bias), role=Role.RESIDUAL_MATRIX)

    def forward(self, x: Tensor, tables: PositionTables) -> Tensor:
        """x [B, T, h] in the compute dtype to [B, T, h]."""
        out: Tensor = self.proj(self.run(self.core, self.qkv(x), tables))
        return out

    def core(self, qkv: Tensor, tables: PositionTables) -> Tensor:
        """qkv [B, T, (a + 2k) d] to the heads' output [B, T, a d]."""
        batch, length, _ = qkv.shape
        split = qkv.view(batch, length, self.heads + 2 * self.kv_heads, self.head_dim)
        query, key, value = torch.split(split, [self.heads, self.kv_heads, self.kv_heads], dim=2)
        if self.query_norm is not None and self.key_norm is not None:
            query, key = self.normed(self.query_norm, query), self.normed(self.key_norm, key)
        query, key = self.rotated(query, tables), self.rotated(key, tables)
        return self.attend(query, key, value, tables).flatten(2)

    def normed(self, norm: nn.Module, x: Tensor) -> Tensor:
        """Norm of [B, T, heads, d], over each head or over all of them."""
        out: Tensor = norm(x.flatten(2)).view_as(x) if self.norm_all_heads else norm(x)
        return out


class LatentAttention(AttentionCore):
    """Multi-head latent attention, no projection absorbed (DeepSeek-V2, arXiv 2405.04434, section 2.1).

    Keys and values of all heads come from one normalized latent; the rotary channels of the keys are one shared
    head. Queries have their own latent if q_lora_rank is given. The flash kernels want heads of one width,
    so under "flash" narrower values are padded with zeros, and the padding is removed from the output.
    """

    def __init__(self, model: ModelConfig, training: TrainingConfig, block: int) -> None:
        super().__init__(model, training, block)
        mla = model.mla
        assert mla is not None
        self.heads, self.nope, self.rope = model.heads, mla.qk_nope_head_dim, mla.qk_rope_head_dim
        self.rank, self.value_dim = mla.kv_lora_rank, mla.v_head_dim
        if model.rope_scaling is not None and model.rope_scaling.latent_score_factor != 1.0:
            self.score_scale = model.rope_scaling.latent_score_factor / math.sqrt(model.head_dim)
        self.query_down = self.query_norm = None
        if mla.q_lora_rank is not None:
            self.query_down = make_linear(training, model.hidden, mla.q_lora_rank)
            self.query_norm = RMSNorm(mla.q_lora_rank, gain=True, eps=model.norm_eps)
        self.query = make_linear(training, mla.q_lora_rank or model.hidden, self.heads * model.head_dim)
        self.kv_down = make_linear(training, model.hidden, self.rank + self.rope)
        self.kv_norm = RMSNorm(self.rank, gain=True, eps=model.norm_eps)
        self.kv_up = make_linear(training, self.rank, self.heads * (self.nope + self.value_dim))
        self.proj = make_linear(training, self.heads * self.value_dim, model.hidden, role=Role.RESIDUAL_MATRIX)

    def forward(self, x: Tensor, tables: PositionTables) -> Tensor:
        """x [B, T, h] in the compute dtype to [B, T, h]."""
        # one expression: names would keep queries, keys and values alive during the last product
        out: Tensor = self.proj(self.run(self.core, self.queries(x, tables), *self.keys_and_values(x, tables), tables))
        return out

    def queries(self, x: Tensor, tables: PositionTables) -> Tensor:
        """[B, T, a, nope + rope]."""
        if self.query_down is not None and self.query_norm is not None:
            x = self.query_norm(self.query_down(x))
        nope, rope = self.query(x).unflatten(-1, (self.heads, -1)).split([self.nope, self.rope], dim=-1)
        return torch.cat([nope, self.rotated(rope, tables)], dim=-1)

    def keys_and_values(self, x: Tensor, tables: PositionTables) -> tuple[Tensor, Tensor]:
        """[B, T, a, nope + rope] and [B, T, a, v], or padded to the keys' width."""
        latent, shared = self.kv_down(x).split([self.rank, self.rope], dim=-1)
        shared = self.rotated(shared.unsqueeze(2), tables)
        up = self.kv_up(self.kv_norm(latent)).unflatten(-1, (self.heads, -1))
        key, value = up.split([self.nope, self.value_dim], dim=-1)
        key = torch.cat([key, shared.expand(-1, -1, self.heads, -1)], dim=-1)
        missing = 0 if self.math else key.shape[3] - self.value_dim
        return key, F.pad(value, (0, missing)) if missing > 0 else value

    def core(self, query: Tensor, key: Tensor, value: Tensor, tables: PositionTables) -> Tensor:
        """Queries, keys and values to the heads' outputs [B, T, a v]."""
        return self.attend(query, key, value, tables)[..., : self.value_dim].flatten(2)
