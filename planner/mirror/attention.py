"""Causal self-attention. Mirror of `reference_trainer/attention.py`."""

from __future__ import annotations

from planner.mirror import operators as op
from planner.mirror.autograd import Autograd, Tensor
from planner.mirror.facts import Facts
from planner.mirror.layers import Linear, Norm, rotate


class Attention:
    """One fused projection for queries, keys and values, grouped heads allowed."""

    def __init__(self, f: Facts, block: int) -> None:
        s = f.shape
        self.f, self.rotary, self.masked = f, f.rotates(block), f.masked(block)
        self.qkv = Linear(f, s.hidden, s.query_width + 2 * s.key_width, s.qkv_bias)
        self.query_norm = Norm(f, s.normed_query) if s.normed_query else None
        self.key_norm = Norm(f, s.normed_key) if s.normed_key else None
        self.proj = Linear(f, s.query_width, s.hidden, s.proj_bias)

    def __call__(self, e: Autograd, x: Tensor) -> Tensor:
        e.label = "blocks.attention.qkv"
        if self.f.training.activation_checkpointing == "selective":
            y = e.checkpoint("blocks.attention", self.core, self.qkv(e, x))
        else:
            y = self.core(e, self.qkv(e, x))
        e.label = "blocks.attention.proj"
        return self.proj(e, y)

    def core(self, e: Autograd, qkv: Tensor) -> Tensor:
        """From the fused projection to the heads' output."""
        e.label = "blocks.attention"
        f, s, n = self.f, self.f.shape, self.f.tokens
        query, key, value = op.split(e, qkv, (n * s.query_width, n * s.key_width, n * s.key_width))
        if self.query_norm is not None and self.key_norm is not None:
            e.label = "blocks.attention.query_norm"
            normed = self.query_norm(e, query)
            e.label = "blocks.attention.key_norm"
            query, key = normed, self.key_norm(e, key)
            del normed
            e.label = "blocks.attention"
        if self.rotary:
            turned = f.model.turned
            turned_query = rotate(e, query, n * s.heads * turned)
            query, key = turned_query, rotate(e, key, n * s.kv_heads * turned)
            del turned_query
        return attend(e, f, query, key, value, self.masked)


def attend(e: Autograd, f: Facts, query: Tensor, key: Tensor, value: Tensor, masked: bool) -> Tensor:
    """Scaled dot-product attention by the kernel that PyTorch picks."""
    return op.flash_attention(e, query, key, value, f.tokens * f.shape.heads, f.shape.value_width * f.tokens)
