"""Causal self-attention on fake tensors. Simulates `reference_trainer/model/attention.py`."""

from __future__ import annotations

from planner.memory.eager import operators as op
from planner.memory.eager.autograd import Autograd
from planner.memory.eager.context import SimulationContext
from planner.memory.eager.graph import Tensor
from planner.memory.eager.layers import Linear, Norm, RowLinear, rms_norm_of, rotate
from planner.memory.eager.sdpa import Mask, attend, in_rows


class Core:
    """Settings that both kinds of attention share. `masks`: this micro-batch's, without and with a window."""

    def __init__(self, ctx: SimulationContext, block: int) -> None:
        self.ctx, self.rotary, self.masked, self.windowed = (
            ctx,
            ctx.has_rope(block),
            ctx.has_mask(block),
            ctx.windowed(block),
        )
        self.masks: tuple[Tensor | None, Tensor | None] = (None, None)

    @property
    def mask(self) -> Mask:
        """The mask that is added to the scores: a tensor, or whether a permanent table exists."""
        made = self.masks[self.windowed]
        return self.masked if made is None else made


class Attention(Core):
    """One fused projection for queries, keys and values, grouped heads allowed."""

    def __init__(self, ctx: SimulationContext, block: int) -> None:
        super().__init__(ctx, block)
        s = ctx.shape
        self.qkv = Linear(ctx, "blocks.attention.qkv", s.hidden, s.query_width + 2 * s.key_width, s.qkv_bias)
        self.query_norm = Norm(ctx, "blocks.attention.query_norm", s.normed_query) if s.normed_query else None
        self.key_norm = Norm(ctx, "blocks.attention.key_norm", s.normed_key) if s.normed_key else None
        self.proj = RowLinear(ctx, "blocks.attention.proj", s.query_width, s.hidden, s.proj_bias)

    def __call__(self, e: Autograd, x: Tensor) -> Tensor:
        e.label = "blocks.attention"
        if self.ctx.training.activation_checkpointing == "selective":
            y = e.checkpoint("blocks.attention", self.core, self.qkv(e, x))
        else:
            y = self.core(e, self.qkv(e, x))
        return self.proj(e, y)

    def core(self, e: Autograd, qkv: Tensor) -> Tensor:
        """The heads' outputs, from the fused projection."""
        ctx, s, n = self.ctx, self.ctx.shape, self.ctx.tokens
        query, key, value = op.split(e, qkv, (n * s.query_width, n * s.key_width, n * s.key_width))
        if self.query_norm is not None and self.key_norm is not None:
            normed = self.query_norm(e, query)
            query, key = normed, self.key_norm(e, key)
            del normed
        if self.rotary:
            rope_dim = ctx.model.rope_dim
            rotated_query = rotate(e, query, n * s.heads * rope_dim)
            query, key = rotated_query, rotate(e, key, n * s.kv_heads * rope_dim)
            del rotated_query
        return in_rows(e, ctx, attend(e, ctx, query, key, value, self.mask))


class LatentAttention(Core):
    """Multi-head latent attention: keys and values come from one normed latent, queries from their own or directly."""

    def __init__(self, ctx: SimulationContext, block: int) -> None:
        super().__init__(ctx, block)
        mla, s = ctx.model.mla, ctx.shape
        assert mla is not None
        self.mla = mla
        rank = mla.q_lora_rank
        self.query_down = Linear(ctx, "blocks.attention.query_down", s.hidden, rank) if rank else None
        self.query_norm = rms_norm_of(ctx, "blocks.attention.query_norm", rank) if rank else None
        self.query = Linear(ctx, "blocks.attention.query", rank or s.hidden, s.query_width)
        self.kv_down = Linear(ctx, "blocks.attention.kv_down", s.hidden, mla.kv_lora_rank + mla.qk_rope_head_dim)
        self.kv_norm = rms_norm_of(ctx, "blocks.attention.kv_norm", mla.kv_lora_rank)
        self.kv_up = Linear(
            ctx, "blocks.attention.kv_up", mla.kv_lora_rank, s.heads * (mla.qk_nope_head_dim + mla.v_head_dim)
        )
        self.proj = RowLinear(ctx, "blocks.attention.proj", s.value_width, s.hidden)

    def __call__(self, e: Autograd, x: Tensor) -> Tensor:
        e.label = "blocks.attention"
        return self.proj(e, self.attended(e, x))

    def attended(self, e: Autograd, x: Tensor) -> Tensor:
        """The heads' outputs. Queries, keys and values are freed as soon as they are used."""
        inputs = (self.queries(e, x), *self.keys_and_values(e, x))
        if self.ctx.training.activation_checkpointing == "selective":
            y = e.checkpoint("blocks.attention", self.core, *inputs)
        else:
            y = self.core(e, *inputs)
        return y

    def queries(self, e: Autograd, x: Tensor) -> Tensor:
        """All heads' queries, the rotary channels last."""
        s, n, mla = self.ctx.shape, self.ctx.tokens, self.mla
        if self.query_down is not None and self.query_norm is not None:
            down = self.query_down(e, x)
            x = self.query_norm(e, down)
            del down
        counts = (n * s.heads * mla.qk_nope_head_dim, n * s.heads * mla.qk_rope_head_dim)
        nope, rope = op.split(e, self.query(e, x), counts)
        return op.join(e, nope, rotate(e, rope, rope.count) if self.rotary else rope)

    def keys_and_values(self, e: Autograd, x: Tensor) -> tuple[Tensor, Tensor]:
        """All heads' keys, the shared rotary channels last, and their values, padded to the keys' width for flash."""
        s, n, mla = self.ctx.shape, self.ctx.tokens, self.mla
        latent, shared = op.split(e, self.kv_down(e, x), (n * mla.kv_lora_rank, n * mla.qk_rope_head_dim))
        if self.rotary:
            shared = rotate(e, shared, shared.count)
        normed = self.kv_norm(e, latent)
        up = self.kv_up(e, normed)
        del normed
        nope, value = op.split(e, up, (n * s.heads * mla.qk_nope_head_dim, n * s.value_width))
        del up
        key = op.join(e, nope, op.view(e, shared, n * s.heads * mla.qk_rope_head_dim))
        if self.ctx.training.attention_kernel == "math" or s.value_width >= s.query_width:
            return key, value
        return key, op.pad(e, value, n * s.query_width)

    def core(self, e: Autograd, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """The heads' outputs, from queries, keys and values."""
        out = attend(e, self.ctx, query, key, value, self.mask)
        values = self.ctx.tokens * self.ctx.shape.value_width
        return in_rows(e, self.ctx, op.view(e, out, values) if out.count > values else out, out.count > values)
