"""Linear layers with casts, norms, rotary embedding, dropout. Simulates `reference_trainer/model/layers.py`."""

from __future__ import annotations

from functools import partial
from typing import Any

from planner.formulas.itemsize import FP32
from planner.memory.eager import operators as op
from planner.memory.eager.autograd import Autograd
from planner.memory.eager.context import SimulationContext
from planner.memory.eager.graph import Gradient, Parameter, Saved, Storage, Tensor
from planner.memory.eager.tensor_parallel import leaving


class Linear:
    """Weight and bias of a linear layer of `inputs` channels; what it saves counts for `label`."""

    __slots__ = ("autocast", "bias", "inputs", "label", "weight")

    def __init__(self, ctx: SimulationContext, label: str, inputs: int, outputs: int, bias: int = 0) -> None:
        self.label, self.inputs, self.autocast = label, inputs, ctx.compute_bytes if ctx.autocast else None
        self.weight = Parameter(inputs * outputs, ctx.weight_bytes)
        self.bias = Parameter(outputs, ctx.weight_bytes) if bias else None

    def __call__(self, e: Autograd, x: Tensor) -> Tensor:
        outer, e.label = e.label, self.label
        out = self._linear(e, x)
        e.label = outer
        return out

    def _linear(self, e: Autograd, x: Tensor) -> Tensor:
        if self.autocast is not None:
            return autocast_linear(e, x, self.weight, self.bias, self.inputs, self.autocast)
        narrow_bias = None if self.bias is None else op.cast(e, self.bias, x.itemsize)
        return op.linear(e, x, op.cast(e, self.weight, x.itemsize), narrow_bias, self.inputs)


class RowLinear(Linear):
    """A linear layer whose input channels tensor-parallel GPUs share: it ends with the sum of their outputs."""

    __slots__ = ("ctx",)

    def __init__(self, ctx: SimulationContext, label: str, inputs: int, outputs: int, bias: int = 0) -> None:
        super().__init__(ctx, label, inputs, outputs, bias)
        self.ctx = ctx

    def _linear(self, e: Autograd, x: Tensor) -> Tensor:
        divided = None
        if self.bias is not None and self.ctx.parallel.tp > 1:
            divided = e.empty(self.bias.count, self.ctx.compute_bytes)  # each GPU adds its part of the bias
        out = super()._linear(e, x)
        del divided
        return leaving(e, self.ctx, out)


def autocast_linear(
    e: Autograd, x: Tensor, weight: Parameter, bias: Parameter | None, inputs: int, itemsize: int
) -> Tensor:
    """F.linear under autocast: casts bias, weight, input, in this order; a parameter once per forward pass."""
    narrow_bias = None if bias is None else e.cached_cast(bias, itemsize, op.cast)
    narrow_weight = e.cached_cast(weight, itemsize, op.cast)
    narrow = op.cast(e, x, itemsize)
    return op.linear(e, narrow, narrow_weight, narrow_bias, inputs)


class Norm:
    """A norm over `width` channels, computed in fp32 for any input type; what it saves counts for `label`."""

    __slots__ = ("label", "layer", "parameters", "width")

    def __init__(self, ctx: SimulationContext, label: str, width: int) -> None:
        self.label, self.layer, self.width = label, ctx.model.norm == "layernorm", width
        self.parameters = tuple(Parameter(width, ctx.weight_bytes) for _ in range(ctx.shape.norm_vectors))

    def __call__(self, e: Autograd, x: Tensor) -> Tensor:
        outer, e.label = e.label, self.label
        layer_norm = op.layer_norm if x.itemsize == FP32 else narrow_layer_norm
        out = (layer_norm if self.layer else _rms_norm)(e, x, self.width, self.parameters)
        e.label = outer
        return out


def rms_norm_of(ctx: SimulationContext, label: str, width: int) -> Norm:
    """The RMSNorm of latent attention: it has a gain, whichever norm the blocks have."""
    norm = Norm(ctx, label, width)
    norm.layer, norm.parameters = False, (Parameter(width, ctx.weight_bytes),)
    return norm


def _widened(e: Autograd, x: Tensor) -> Tensor:
    """x.float() without a graph: x itself if it is fp32."""
    return x if x.itemsize == FP32 else e.empty(x.count, FP32)


def _wide_parameters(e: Autograd, parameters: tuple[tuple[int, int], ...]) -> list[Storage]:
    return [e.allocate(count * FP32) for count, itemsize in parameters if itemsize != FP32]


def narrow_layer_norm(e: Autograd, x: Tensor, width: int, parameters: tuple[Parameter, ...]) -> Tensor:
    """LayerNorm of a narrow x, computed in fp32; saves x as it is and fp32 statistics."""
    rows, sizes = x.count // width, tuple((p.count, p.itemsize) for p in parameters)
    wide_parameters = _wide_parameters(e, sizes)
    wide_x = _widened(e, x)
    wide = e.empty(x.count, FP32)
    mean, deviation = e.empty(rows, FP32), e.empty(rows, FP32)
    del wide_x
    node = e.node((x, *parameters), partial(_narrow_layer_norm_backward, e, x.count, x.itemsize, sizes))
    out = e.empty(x.count, x.itemsize)
    del wide, wide_parameters
    e.save(node, x, *parameters, mean, deviation)
    out.node = node
    return out


def _narrow_layer_norm_backward(
    e: Autograd, count: int, itemsize: int, parameters: tuple[tuple[int, int], ...], grads: list[Gradient], saved: Saved
) -> list[Any]:
    wide_parameters = _wide_parameters(e, parameters)
    wide_grad, wide_x = e.allocate(count * FP32), e.allocate(count * FP32)
    into = e.allocate(count * FP32)
    gains = [e.allocate(size * FP32) for size, _ in parameters]
    del wide_grad, wide_x
    out = e.allocate(count * itemsize)
    made = [
        gain if kept == FP32 else e.allocate(size * kept) for gain, (size, kept) in zip(gains, parameters, strict=True)
    ]
    del into, wide_parameters, gains
    return [out, *made]


def _rms_norm(e: Autograd, x: Tensor, width: int, parameters: tuple[Parameter, ...]) -> Tensor:
    """The reference model's RMSNorm: saves x and 1/rms."""
    rows, wide = x.count // width, x.count * FP32
    # x widened, its square, the mean of that, and the inverse of its root
    made = (wide, rows * FP32, rows * FP32) if x.itemsize == FP32 else (wide, wide, rows * FP32, rows * FP32)
    inverse = Tensor(e.last_of(*made), rows, FP32)
    sizes = tuple((p.count, p.itemsize) for p in parameters)
    node = e.node((x, *parameters), partial(_rms_norm_backward, e, x.count, x.itemsize, rows, sizes))
    out = e.empty(x.count, FP32)
    if x.itemsize != FP32:
        out = e.empty(x.count, x.itemsize)
    e.save(node, x, *parameters, inverse)
    out.node = node
    return out


def _rms_norm_backward(
    e: Autograd,
    count: int,
    itemsize: int,
    rows: int,
    parameters: tuple[tuple[int, int], ...],
    grads: list[Gradient],
    saved: Saved,
) -> list[Any]:
    wide = e.allocate(count * FP32) if itemsize != FP32 else None
    normalised = e.allocate(count * FP32)
    gains: list[Storage] = []
    for size, kept in parameters:
        product = e.allocate(count * FP32)
        gain = e.summed(count // size, size, FP32)
        del product
        gains.append(gain if kept == FP32 else e.allocate(size * kept))
        del gain
    scaled = e.allocate(count * FP32)
    shift = e.last_of(count * FP32, rows * FP32)  # from a product again
    out = scaled if itemsize == FP32 else e.allocate(count * itemsize)
    del normalised, shift, wide, scaled
    return [out, *gains]


def rotate(e: Autograd, x: Tensor, rope_elements: int) -> Tensor:
    """Rotary embedding of `rope_elements` of x's elements: nothing saved; two fp32 halves at a time."""
    out = op.operator(e, (x,), partial(_rotate_backward, e, x.nbytes, rope_elements), x.count, x.itemsize)
    _halves(e, rope_elements)
    return out


def _halves(e: Autograd, rope_elements: int) -> None:
    half = rope_elements // 2 * FP32
    for _ in range(2):
        e.scratch(half, half)


def _rotate_backward(e: Autograd, size: int, rope_elements: int, grads: list[Gradient], saved: Saved) -> list[Any]:
    out = e.allocate(size)
    _halves(e, rope_elements)
    return [out]


def dropout(e: Autograd, ctx: SimulationContext, x: Tensor, label: str) -> Tensor:
    """native_dropout: saves a mask of one byte per element; x itself without dropout, or in evaluation."""
    if not ctx.training.dropout or not e.recording:
        return x
    e.label = label
    out = op.elementwise(e, x)
    e.save(out.node, e.empty(x.count, 1))
    return out
