"""The whole decoder. Simulates `reference_trainer/model/gpt.py`.

A name that PyTorch's version keeps is kept here, and what it drops is dropped: this makes the peaks exact. Calling an
object keeps its arguments alive until the call returns, as calling a PyTorch module does.
"""

from __future__ import annotations

from collections.abc import Callable

from planner.formulas.itemsize import INT64
from planner.memory.eager import operators as op
from planner.memory.eager.attention import Attention, LatentAttention
from planner.memory.eager.autograd import Autograd
from planner.memory.eager.context import SimulationContext
from planner.memory.eager.graph import Parameter, Tensor
from planner.memory.eager.layers import Linear, Norm, dropout
from planner.memory.eager.losses import LOSS_FUNCTIONS
from planner.memory.eager.mlp import MLP
from planner.memory.eager.moe import MoE
from planner.memory.eager.tensor_parallel import entering, leaving, rows_of_table

DROPOUT = "blocks.dropout"


class Block:
    """One transformer block: attention and MLP, each with the norms before and after it."""

    def __init__(self, ctx: SimulationContext, index: int) -> None:
        model, hidden = ctx.model, ctx.shape.hidden
        self.ctx = ctx
        before, after = model.norm_placement != "post", model.norm_placement != "pre"
        self.attention_norm = Norm(ctx, "blocks.attention_norm", hidden) if before else None
        self.attention = Attention(ctx, index) if model.mla is None else LatentAttention(ctx, index)
        self.attention_post_norm = Norm(ctx, "blocks.attention_post_norm", hidden) if after else None
        self.mlp_norm = (
            Norm(ctx, "blocks.mlp_norm", hidden) if before and model.residual != "parallel-one-norm" else None
        )
        self.mlp = MoE(ctx) if ctx.block_kind(index)[0] else MLP(ctx, ctx.shape.ffn, ctx.shape.mlp_bias)
        self.mlp_post_norm = Norm(ctx, "blocks.mlp_post_norm", hidden) if after else None

    def __call__(self, e: Autograd, x: Tensor) -> Tensor:
        if self.ctx.model.residual == "parallel-one-norm":
            normed = self.into(e, x, self.attention_norm)
            both = op.add(e, x, dropout(e, self.ctx, self.sub_layer(e, self.attention, normed), DROPOUT))
            return op.add(e, both, dropout(e, self.ctx, self.sub_layer(e, self.mlp, normed), DROPOUT))
        if self.ctx.model.residual == "parallel":
            return op.add(e, op.add(e, x, self.attention_branch(e, x)), self.mlp_branch(e, x))
        x = op.add(e, x, self.attention_branch(e, x))
        return op.add(e, x, self.mlp_branch(e, x))

    def into(self, e: Autograd, x: Tensor, norm: Norm | None) -> Tensor:
        """The input of a sub-layer: the normed residual stream in the compute type."""
        return op.cast(e, _normed(e, norm, x), self.ctx.cast_to)

    def sub_layer(self, e: Autograd, layer: Callable[[Autograd, Tensor], Tensor], x: Tensor) -> Tensor:
        """A sub-layer of the tokens of all tensor-parallel GPUs, of which x has this GPU's or all."""
        return layer(e, entering(e, self.ctx, x))

    def attention_branch(self, e: Autograd, x: Tensor) -> Tensor:
        """What attention adds to the residual stream."""
        y = self.sub_layer(e, self.attention, self.into(e, x, self.attention_norm))
        y = dropout(e, self.ctx, y, DROPOUT)
        return _normed(e, self.attention_post_norm, y)

    def mlp_branch(self, e: Autograd, x: Tensor) -> Tensor:
        """What the MLP adds to the residual stream."""
        y = self.sub_layer(e, self.mlp, self.into(e, x, self.mlp_norm))
        y = dropout(e, self.ctx, y, DROPOUT)
        return _normed(e, self.mlp_post_norm, y)


def _normed(e: Autograd, norm: Norm | None, x: Tensor) -> Tensor:
    """x after a norm, or x itself if there is none."""
    return x if norm is None else norm(e, x)


class Network:
    """The whole decoder except its blocks, which are made as they are simulated."""

    def __init__(self, ctx: SimulationContext) -> None:
        s = ctx.shape
        self.ctx = ctx
        self.embedding = Parameter(s.vocab * s.hidden, ctx.weight_bytes)
        self.embedding_norm = Norm(ctx, "embedding_norm", s.hidden) if ctx.model.embedding_norm else None
        self.position = Parameter(s.position_rows * s.hidden, ctx.weight_bytes) if s.learned_positions else None
        self.norm = Norm(ctx, "norm", s.hidden)
        self.head = Linear(ctx, "head", s.hidden, s.vocab)
        if s.tied:
            self.head.weight = self.embedding

    def embed(self, e: Autograd, ids: Tensor) -> Tensor:
        """Token embedding, its norm, positions, dropout."""
        ctx = self.ctx
        e.label = "embedding"
        look_up = op.embedding if ctx.parallel.tp == 1 else rows_of_table
        x = leaving(e, ctx, look_up(e, ids, self.embedding, ctx.shape.hidden))
        if self.embedding_norm is not None:
            x = self.embedding_norm(e, x)
        if self.position is not None:
            e.label = "position"
            positions = e.empty(ctx.training.seq, INT64)
            positions = positions.view(ctx.stream_tokens // ctx.training.micro_batch, None)
            looked_up = op.embedding(e, positions, self.position, ctx.shape.hidden)
            del positions
            x = op.add(e, x, looked_up, broadcast=True)
            del looked_up
        return dropout(e, ctx, x, "dropout")

    def receive(self, e: Autograd) -> Tensor:
        """The output of the stage before, which wants its gradient back; it lies in a buffer that stays."""
        count = self.ctx.stream_tokens * self.ctx.shape.hidden
        return Tensor(None, count, self.ctx.weight_bytes, e.node((), lambda grads, saved: []))

    def last_norm(self, e: Autograd, x: Tensor) -> Tensor:
        """The input of the head, of this GPU's tokens."""
        hidden = op.cast(e, self.norm(e, x), self.ctx.cast_to)
        return op.gradient_hook(e, hidden, lambda: e.ledger.phase("backward_block"))

    def loss(self, e: Autograd, hidden: Tensor, targets: Tensor) -> Tensor:
        """Head and cross-entropy."""
        return LOSS_FUNCTIONS[self.ctx.training.loss](e, self.ctx, self.head, hidden, targets)
