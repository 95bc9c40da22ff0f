"""A token-choice mixture of experts. Mirror of `MoE` in `reference_trainer/model/mlp.py`."""

from __future__ import annotations

from functools import partial
from typing import Any

from planner.memory.eager import operators as op
from planner.memory.eager.autograd import Autograd
from planner.memory.eager.context import SimulationContext
from planner.memory.eager.graph import Gradient, Parameter, Reduced, Saved, Tensor
from planner.memory.eager.layers import Linear
from planner.memory.eager.mlp import ACTIVATIONS, MLP
from planner.memory.eager.operators import FP32, INDEX


class Experts:
    """The routed experts' MLPs; each matrix of all experts is one parameter."""

    def __init__(self, ctx: SimulationContext) -> None:
        moe, s = ctx.model.moe, ctx.shape
        assert moe is not None
        self.activation, self.width, self.ffn = ACTIVATIONS[ctx.model.mlp], s.hidden, moe.expert_ffn
        size = moe.experts * s.hidden * moe.expert_ffn
        self.gate = Parameter(size, ctx.weight_bytes) if s.gated else None
        self.up, self.down = Parameter(size, ctx.weight_bytes), Parameter(size, ctx.weight_bytes)

    def __call__(self, e: Autograd, x: Tensor) -> Tensor:
        e.label = "blocks.mlp.experts"
        if self.gate is None:
            act = self.activation(e, grouped_linear(e, x, self.up, self.width, self.ffn))
        else:
            act = op.multiply(
                e,
                self.activation(e, grouped_linear(e, x, self.gate, self.width, self.ffn)),
                grouped_linear(e, x, self.up, self.width, self.ffn),
            )
        out = grouped_linear(e, act, self.down, self.ffn, self.width)
        e.label = "blocks.mlp"
        return out


class MoE:
    """Router, routed experts, shared experts."""

    def __init__(self, ctx: SimulationContext) -> None:
        moe, hidden = ctx.model.moe, ctx.shape.hidden
        assert moe is not None
        self.ctx, self.moe = ctx, moe
        self.router = Linear(ctx, hidden, moe.experts)
        self.experts = Experts(ctx)
        self.shared = MLP(ctx, moe.shared_ffn, 0, "blocks.mlp.shared") if moe.shared_ffn else None
        self.shared_gate = Linear(ctx, hidden, 1) if moe.shared_gate else None

    def __call__(self, e: Autograd, x: Tensor) -> Tensor:
        weights, tokens = self.route(e, x)
        out = self.routed(e, x, weights, tokens)  # weights and tokens keep their names to the end
        if self.shared is not None and self.shared_gate is not None:
            e.label = "blocks.mlp.shared_gate"
            gate = self.shared_gate(e, x)
            e.label = "blocks.mlp"
            gate = op.relu(e, gate)  # the sigmoid too keeps its output
            y = self.shared(e, x)
            e.label = "blocks.mlp"
            y = multiply_rows(e, gate, y, wide_first=False)
            del gate
            return op.add(e, out, y)
        if self.shared is not None:
            return op.add(e, out, self.shared(e, x))
        return out

    def routed(self, e: Autograd, x: Tensor, weights: Tensor, tokens: Tensor) -> Tensor:
        """Zeros to which the chosen experts' weighed outputs are added."""
        e.label = "blocks.mlp"
        ctx = self.ctx
        zeros = e.new(x.count, ctx.compute_bytes)
        product = multiply_rows(
            e, self.experts(e, index_select(e, op.cast(e, x, ctx.compute_bytes), tokens, ctx.shape.hidden)), weights
        )
        e.label = "blocks.mlp"
        node = e.node((product,), partial(op.one_gradient, e, product.count * product.itemsize))
        e.save(node, tokens, product)
        return zeros.view(zeros.count, node)

    def route(self, e: Autograd, x: Tensor) -> tuple[Tensor, Tensor]:
        """Weights and token numbers of the n k pairs, sorted by expert."""
        n, pairs = self.ctx.tokens, self.ctx.tokens * self.moe.top_k
        e.label = "blocks.mlp.router"
        logits = self.router(e, x)
        e.label = "blocks.mlp"
        wide = op.cast(e, logits, FP32)
        del logits
        shares = op.relu(e, wide)  # the softmax keeps its output
        del wide
        node = e.node((shares,), partial(_topk_backward, e, shares.count * FP32))
        chosen_weights, chosen = e.new(pairs, FP32), e.new(pairs, INDEX)
        e.save(node, chosen)
        chosen_weights.node = node
        del shares
        chosen_weights = divide(e, chosen_weights, summed(e, chosen_weights, n))
        in_order, order = e.new(pairs, INDEX), e.new(pairs, INDEX)
        del in_order
        picked = index_select(e, chosen_weights, order, 1)
        weights = op.cast(e, picked, self.ctx.compute_bytes)
        del picked
        tokens = e.new(pairs, INDEX)
        return weights, tokens


def grouped_linear(e: Autograd, x: Tensor, weight: Parameter, inputs: int, outputs: int) -> Tensor:
    """Rows sorted by expert, times each expert's matrix; the weight is cast each time."""
    narrow = op.cast(e, weight, x.itemsize)
    rows = x.count // inputs
    node = e.node((x, narrow), partial(op.two_gradients, e, x.count * x.itemsize, narrow.count * narrow.itemsize))
    out = e.new(rows * outputs, x.itemsize)
    e.save(node, x, narrow)
    out.node = node
    return out


def _topk_backward(e: Autograd, size: int, grads: list[Gradient], saved: Saved) -> list[Any]:
    zeros = e.bytes(size)
    out = e.bytes(size)
    del zeros
    return [out]


def index_select(e: Autograd, x: Tensor, index: Tensor, width: int) -> Tensor:
    """Rows of `width` elements by number; backward adds them into zeros, out of place."""
    node = e.node((x,), partial(_topk_backward, e, x.count * x.itemsize))
    e.save(node, index)
    out = e.new(index.count * width, x.itemsize)
    out.node = node
    return out


def summed(e: Autograd, x: Tensor, count: int) -> Tensor:
    """Sums over the last dimension; the gradient is a view."""
    node = e.node((x,), op.pass_gradient)
    out = e.new(count, x.itemsize)
    out.node = node
    return out


def divide(e: Autograd, x: Tensor, y: Tensor) -> Tensor:
    """x / y, y one number per row: saves both."""
    node = e.node((x, y), partial(_divide_backward, e, x.count * x.itemsize, y.count * y.itemsize))
    e.save(node, x, y)
    out = e.new(x.count, x.itemsize)
    out.node = node
    return out


def _divide_backward(e: Autograd, x: int, y: int, grads: list[Gradient], saved: Saved) -> list[Any]:
    """-grad * ((x / y) / y) for y, then grad / y for x."""
    first = e.bytes(x)
    second = e.bytes(x)
    negative = e.bytes(x)
    to_y = e.bytes(x)
    del first, second, negative
    return [e.bytes(x), Reduced(to_y, y)]


def multiply_rows(e: Autograd, x: Tensor, y: Tensor, wide_first: bool = True) -> Tensor:
    """x * y where one has a single number per row of the other: saves both, the small gradient is summed."""
    wide, small = (x, y) if wide_first else (y, x)
    sizes = (wide.count * wide.itemsize, small.count * small.itemsize)
    node = e.node((x, y), partial(_multiply_rows_backward, e, sizes, wide_first))
    e.save(node, x, y)
    out = e.new(wide.count, wide.itemsize)
    out.node = node
    return out


def _multiply_rows_backward(
    e: Autograd, sizes: tuple[int, int], wide_first: bool, grads: list[Gradient], saved: Saved
) -> list[Any]:
    first, second = e.bytes(sizes[0]), e.bytes(sizes[0])
    return [first, Reduced(second, sizes[1])] if wide_first else [Reduced(first, sizes[1]), second]
