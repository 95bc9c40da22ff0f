"""The MLPs of a block. Simulates `reference_trainer/model/mlp.py`."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from planner.formulas.itemsize import FP32
from planner.memory.eager import operators as op
from planner.memory.eager.autograd import Autograd
from planner.memory.eager.context import SimulationContext
from planner.memory.eager.graph import Tensor
from planner.memory.eager.layers import Linear, RowLinear

Activation = Callable[[Autograd, Tensor], Tensor]
ACTIVATIONS: dict[str, Activation] = {
    "gelu": op.gelu,
    "gelu-written-out": op.written_out_gelu,
    "swiglu": op.gelu,
    "geglu": op.gelu,
    "relu": op.relu,
    "relu2": op.relu_squared,
}


def activation_of(ctx: SimulationContext) -> Activation:
    """The activation of a model. Autocast on CUDA computes powers in fp32; on a CPU it does not."""
    if ctx.model.mlp == "gelu-written-out" and ctx.autocast and ctx.cuda:
        return partial(op.written_out_gelu, power_itemsize=FP32)
    return ACTIVATIONS[ctx.model.mlp]


class MLP:
    """Two matrices around an activation, or three with a gate."""

    def __init__(self, ctx: SimulationContext, ffn: int, bias: int, label: str = "blocks.mlp") -> None:
        s, last = ctx.shape, RowLinear if label == "blocks.mlp" else Linear  # shared experts are summed with others
        self.label, self.activation = label, activation_of(ctx)
        self.gate = Linear(ctx, f"{label}.gate", s.hidden, ffn, bias) if s.gated else None
        self.up = Linear(ctx, f"{label}.up", s.hidden, ffn, bias)
        self.down = last(ctx, f"{label}.down", ffn, s.hidden, bias)

    def __call__(self, e: Autograd, x: Tensor) -> Tensor:
        e.label = self.label
        act = self.plain(e, x) if self.gate is None else self.gated(e, x, self.gate)
        return self.down(e, act)

    def plain(self, e: Autograd, x: Tensor) -> Tensor:
        """activation(up x)."""
        wide = self.up(e, x)
        return self.activation(e, wide)

    def gated(self, e: Autograd, x: Tensor, gate: Linear) -> Tensor:
        """activation(gate x) * (up x)."""
        wide = gate(e, x)
        act = self.activation(e, wide)
        del wide
        up = self.up(e, x)
        return op.multiply(e, act, up)
