"""A token-choice mixture of experts. Simulates `MoE` in `reference_trainer/model/mlp.py`."""

from __future__ import annotations

from functools import partial
from typing import Any

from planner.config.model import ModelConfig
from planner.counts.shape import blocks_with_experts
from planner.formulas.itemsize import FP32, INT32, INT64
from planner.memory.eager import operators as op
from planner.memory.eager.autograd import Autograd
from planner.memory.eager.context import SimulationContext
from planner.memory.eager.graph import Gradient, Parameter, Reduced, Saved, Tensor
from planner.memory.eager.layers import Linear
from planner.memory.eager.mlp import ACTIVATIONS, MLP
from planner.memory.eager.tensor_parallel import leaving


class Experts:
    """The MLPs of the routed experts; the same matrix of all experts is one parameter."""

    def __init__(self, ctx: SimulationContext) -> None:
        moe, s = ctx.model.moe, ctx.shape
        assert moe is not None
        self.activation, self.width, self.ffn = ACTIVATIONS[ctx.model.mlp], s.hidden, moe.expert_ffn
        size = moe.experts * s.hidden * moe.expert_ffn
        self.gate = Parameter(size, ctx.weight_bytes) if s.gated else None
        self.up, self.down = Parameter(size, ctx.weight_bytes), Parameter(size, ctx.weight_bytes)

    def __call__(self, e: Autograd, x: Tensor, ends: Tensor) -> Tensor:
        e.label = "blocks.mlp.experts"
        if e.gradient_shards > 1:
            e.expert_nodes.update(p.node for p in (self.gate, self.up, self.down) if p is not None and p.node)
        if self.gate is None:
            act = self.activation(e, grouped_linear(e, x, self.up, ends, self.ffn))
        else:
            act = op.multiply(
                e,
                self.activation(e, grouped_linear(e, x, self.gate, ends, self.ffn)),
                grouped_linear(e, x, self.up, ends, self.ffn),
            )
        out = grouped_linear(e, act, self.down, ends, self.width)
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
        return leaving(e, self.ctx, self.mixed(e, x))

    def mixed(self, e: Autograd, x: Tensor) -> Tensor:
        """The sum of a token's experts, of this GPU's channels."""
        e.label = "blocks.mlp"
        weights, tokens, ends = self.route(e, x)
        out = self.routed(e, x, weights, tokens, ends)  # these three keep their names to the end
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

    def routed(self, e: Autograd, x: Tensor, weights: Tensor, tokens: Tensor, ends: Tensor) -> Tensor:
        """The routed experts' outputs, weighted and added into zeros."""
        ctx = self.ctx
        zeros = e.empty(x.count, ctx.compute_bytes)
        product = multiply_rows(  # one expression: a name would keep the sorted rows alive
            e,
            self.experts(e, index_select(e, op.cast(e, x, ctx.compute_bytes), tokens, ctx.shape.hidden), ends),
            weights,
        )
        e.label = "blocks.mlp"
        node = e.node((product,), op.new_gradients(e, product.nbytes))
        e.save(node, tokens, product)
        return zeros.view(zeros.count, node)

    def route(self, e: Autograd, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Routing weight and token index of each of the n k pairs of token and expert, sorted by expert; their ends."""
        n, pairs = self.ctx.tokens, self.ctx.tokens * self.moe.top_k
        logits = self.router(e, x)
        wide = op.cast(e, logits, FP32)
        del logits
        probabilities = op.relu(e, wide)  # softmax: saves its output too; its name keeps it alive to the end
        del wide
        if self.moe.has_balancing_loss and e.recording:  # its gradient has the balancing loss's added
            probabilities = op.view(e, probabilities, probabilities.count)
        chosen_weights, _chosen = self.choose(e, probabilities)  # whose name keeps it alive too
        chosen_weights = divide(e, chosen_weights, summed(e, chosen_weights, n))
        in_order, order = e.empty(pairs, INT64), e.empty(pairs, INT64)
        numbers = e.empty(self.moe.experts, INT64)
        ends = e.empty(self.moe.experts, INT32)
        del in_order, numbers
        picked = index_select(e, chosen_weights, order, 1)
        weights = op.cast(e, picked, self.ctx.compute_bytes)
        del picked
        tokens = e.empty(pairs, INT64)
        return weights, tokens, ends

    def choose(self, e: Autograd, probabilities: Tensor) -> tuple[Tensor, Tensor]:
        """Probability and number of each token's experts; a bias is added for the choice alone."""
        pairs = self.ctx.tokens * self.moe.top_k
        backward = op.new_gradients(e, probabilities.nbytes, before=(probabilities.nbytes,))
        if self.moe.balancing == "bias":
            biased, values = e.empty(probabilities.count, FP32), e.empty(pairs, FP32)
            chosen = e.empty(pairs, INT64)
            del biased, values
            return op.operator(e, (probabilities,), backward, pairs, FP32, save=(chosen,)), chosen
        weights = op.operator(e, (probabilities,), backward, pairs, FP32)
        chosen = e.empty(pairs, INT64)
        e.save(weights.node, chosen)
        return weights, chosen


def balance_bytes(model: ModelConfig) -> int:
    """Bytes of `ExpertBalance`'s tensors, which stay from start to end; 0 without experts."""
    moe = model.moe
    if moe is None:
        return 0
    blocks = blocks_with_experts(model)
    tables = 4 if moe.has_balancing_loss else 3 if moe.balancing == "bias" else 2
    return FP32 * (tables * blocks * moe.experts + (2 if moe.has_balancing_loss else 0))


def bias_step_bytes(model: ModelConfig) -> int:
    """Bytes of `ExpertBalance.move_bias` at its peak: the direction, its product with the rate, the rate; else 0."""
    moe = model.moe
    if moe is None or moe.balancing != "bias":
        return 0
    blocks = blocks_with_experts(model)
    return FP32 * (2 * blocks * moe.experts + 1)


def balanced_loss(e: Autograd, ctx: SimulationContext, loss: Tensor, targets: Tensor) -> Tensor:
    """`ExpertBalance.add`: the summed loss with the balancing loss of each target."""
    moe = ctx.model.moe
    if moe is None or not moe.has_balancing_loss or not e.recording:
        return loss
    blocks = blocks_with_experts(ctx.model)
    pooled = moe.balancing == "loss-pooled"
    valid = e.allocate(targets.count)
    count = e.empty(1, INT64)
    del valid
    means = [e.allocate(moe.experts * FP32) for _ in range(2)] if pooled else []
    products = e.allocate((1 if pooled else blocks) * moe.experts * FP32)
    total = e.allocate(FP32)
    del products
    value = e.allocate(FP32)
    del total, means
    value = e.allocate(FP32)
    node = e.node((loss,), partial(_balanced_loss_backward, e, count, moe.experts * FP32 if pooled else 0))
    out = e.empty(1, FP32)
    del value
    out.node = node
    return out


def _balanced_loss_backward(e: Autograd, count: Tensor, mean: int, grads: list[Gradient], saved: Saved) -> list[Any]:
    """The slopes are filled in place, from the mean over the blocks where they are pooled."""
    counted = e.allocate(FP32)
    means = e.allocate(mean) if mean else None
    del means
    scaled = e.allocate(FP32)
    del counted, scaled
    return list(grads)


def grouped_linear(e: Autograd, x: Tensor, weight: Parameter, ends: Tensor, outputs: int) -> Tensor:
    """Rows sorted by expert, times each expert's matrix [E, inputs, outputs]; the weight is cast each time."""
    narrow = op.cast(e, weight, x.itemsize)
    inputs = weight.count // ends.count // outputs
    rows = x.count // inputs
    out = op.operator(e, (x, narrow), op.new_gradients(e, x.nbytes, narrow.nbytes), rows * outputs, x.itemsize)
    e.save(out.node, x, narrow, ends)
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
