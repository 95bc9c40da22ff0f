"""A token-choice mixture of experts. Simulates `MoE` in `reference_trainer/model/mlp.py`."""

from __future__ import annotations

from functools import partial
from typing import Any

from planner.formulas.itemsize import FP32, INT64
from planner.memory.eager import operators as op
from planner.memory.eager.autograd import Autograd
from planner.memory.eager.context import SimulationContext
from planner.memory.eager.graph import Gradient, Parameter, Reduced, Saved, Tensor
from planner.memory.eager.layers import Linear
from planner.memory.eager.mlp import ACTIVATIONS, MLP


class Experts:
    """The MLPs of the routed experts; the same matrix of all experts is one parameter."""

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
        self.router = Linear(ctx, "blocks.mlp.router", hidden, ctx.routed_experts)
        self.experts = Experts(ctx)
        self.shared = MLP(ctx, moe.shared_ffn, 0, "blocks.mlp.shared") if moe.shared_ffn else None
        self.shared_gate = Linear(ctx, "blocks.mlp.shared_gate", hidden, 1) if moe.shared_gate else None

    def __call__(self, e: Autograd, x: Tensor) -> Tensor:
        e.label = "blocks.mlp"
        weights, tokens = self.route(e, x)
        out = self.routed(e, x, weights, tokens)  # weights and tokens keep their names to the end
        if self.shared is not None and self.shared_gate is not None:
            gate = self.shared_gate(e, x)
            gate = op.relu(e, gate)  # sigmoid: saves its output too
            y = self.shared(e, x)
            e.label = "blocks.mlp"
            y = multiply_rows(e, gate, y)
            del gate
            return op.add(e, out, y)
        if self.shared is not None:
            return op.add(e, out, self.shared(e, x))
        return out

    def routed(self, e: Autograd, x: Tensor, weights: Tensor, tokens: Tensor) -> Tensor:
        """The routed experts' outputs, weighted and added into zeros."""
        ctx = self.ctx
        zeros = e.empty(x.count, ctx.compute_bytes)
        product = multiply_rows(
            e, self.experts(e, index_select(e, op.cast(e, x, ctx.compute_bytes), tokens, ctx.shape.hidden)), weights
        )
        e.label = "blocks.mlp"
        node = e.node((product,), op.new_gradients(e, product.nbytes))
        e.save(node, tokens, product)
        return zeros.view(zeros.count, node)

    def route(self, e: Autograd, x: Tensor) -> tuple[Tensor, Tensor]:
        """Routing weight and token index of each of the n k pairs of token and expert, sorted by expert."""
        n, pairs = self.ctx.tokens, self.ctx.tokens * self.moe.top_k
        logits = self.router(e, x)
        wide = op.cast(e, logits, FP32)
        del logits
        probabilities = op.relu(e, wide)  # softmax: saves its output too
        del wide
        backward = op.new_gradients(e, probabilities.nbytes, before=(probabilities.nbytes,))
        chosen_weights = op.operator(e, (probabilities,), backward, pairs, FP32)
        chosen = e.empty(pairs, INT64)  # its name keeps it alive to the end
        e.save(chosen_weights.node, chosen)
        del probabilities
        chosen_weights = divide(e, chosen_weights, summed(e, chosen_weights, n))
        in_order, order = e.empty(pairs, INT64), e.empty(pairs, INT64)
        del in_order
        picked = index_select(e, chosen_weights, order, 1)
        weights = op.cast(e, picked, self.ctx.compute_bytes)
        del picked
        tokens = e.empty(pairs, INT64)
        return weights, tokens


def grouped_linear(e: Autograd, x: Tensor, weight: Parameter, inputs: int, outputs: int) -> Tensor:
    """Rows sorted by expert, times each expert's matrix; the weight is cast each time."""
    narrow = op.cast(e, weight, x.itemsize)
    rows = x.count // inputs
    out = op.operator(e, (x, narrow), op.new_gradients(e, x.nbytes, narrow.nbytes), rows * outputs, x.itemsize)
    e.save(out.node, x, narrow)
    return out


def index_select(e: Autograd, x: Tensor, index: Tensor, width: int) -> Tensor:
    """Rows of `width` elements by number; backward adds them into zeros, out of place."""
    backward = op.new_gradients(e, x.nbytes, before=(x.nbytes,))
    return op.operator(e, (x,), backward, index.count * width, x.itemsize, save=(index,))


def summed(e: Autograd, x: Tensor, count: int) -> Tensor:
    """Sums over the last dimension; the gradient is a view."""
    return op.operator(e, (x,), op.pass_gradient, count, x.itemsize)


def divide(e: Autograd, x: Tensor, y: Tensor) -> Tensor:
    """x / y, y one number per row: saves both."""
    backward = partial(_divide_backward, e, x.nbytes, y.nbytes)
    return op.operator(e, (x, y), backward, x.count, x.itemsize, save=(x, y))


def _divide_backward(e: Autograd, x: int, y: int, grads: list[Gradient], saved: Saved) -> list[Any]:
    """-grad * ((x / y) / y) for y, then grad / y for x."""
    first = e.allocate(x)
    second = e.allocate(x)
    negative = e.allocate(x)
    to_y = e.allocate(x)
    del first, second, negative
    return [e.allocate(x), Reduced(to_y, y)]


def multiply_rows(e: Autograd, x: Tensor, y: Tensor) -> Tensor:
    """x * y where one has a single number per row of the other: saves both, the small gradient is summed."""
    wide = max(x, y, key=lambda t: t.count)
    sizes = (t.nbytes if t.count == wide.count else (wide.nbytes, t.nbytes) for t in (x, y))
    return op.operator(e, (x, y), op.new_gradients(e, *sizes), wide.count, wide.itemsize, save=(x, y))
