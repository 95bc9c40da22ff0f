"""Operators of a transformer on tensors that weigh but hold nothing (`autograd.py`).

Each mirrors what eager PyTorch allocates and saves, forward and backward, in PyTorch's order. `e` is the autograd;
sizes are elements. A custom function of the reference model (RMSNorm, rotary embedding) is mirrored line by line.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from planner.memory.eager.autograd import Autograd
from planner.memory.eager.graph import Gradient, Node, Parameter, Reduced, Saved, Summed, Tensor

FP32 = 4
INDEX = 8  # int64


def cast(e: Autograd, x: Tensor, itemsize: int) -> Tensor:
    """x.to(dtype): nothing where it has the type already; backward casts the gradient back."""
    if x.itemsize == itemsize:
        return x
    node = e.node((x,), partial(_cast_backward, e, x.count * x.itemsize)) if x.node is not None else None
    out = e.new(x.count, itemsize)
    out.node = node
    return out


def gradient_hook(e: Autograd, x: Tensor, reached: Callable[[], object]) -> Tensor:
    """x itself; `reached` is called when backward has its whole gradient."""
    return x.view(x.count, e.node((x,), partial(_mark_backward, reached)))


def _mark_backward(reached: Callable[[], object], grads: list[Gradient], saved: Saved) -> list[Any]:
    reached()
    return list(grads)


def _cast_backward(e: Autograd, size: int, grads: list[Gradient], saved: Saved) -> list[Any]:
    return [e.bytes(size)]


def add(e: Autograd, x: Tensor, y: Tensor, broadcast: bool = False) -> Tensor:
    """x + y; types promote to the wider. broadcast: y has fewer dimensions, its gradient is summed."""
    node = e.node((x, y), partial(_add_backward, e, (x.count, x.itemsize), (y.count, y.itemsize), broadcast))
    out = e.new(max(x.count, y.count), max(x.itemsize, y.itemsize))
    out.node = node
    return out


def _add_backward(
    e: Autograd, x: tuple[int, int], y: tuple[int, int], broadcast: bool, grads: list[Gradient], saved: Saved
) -> list[Any]:
    itemsize = max(x[1], y[1])
    outputs: list[Any] = []
    for i, size in enumerate((x, y)):
        if broadcast and i == 1:
            outputs.append(Summed(size[0] * itemsize))
        elif size[1] < itemsize:
            outputs.append(e.bytes(size[0] * size[1]))
        else:
            outputs.append(grads[0])
    return outputs


def linear(e: Autograd, x: Tensor, weight: Tensor, bias: Tensor | None, width: int) -> Tensor:
    """x [.., K] times weight [M, K], of one type; `width` is K."""
    rows, outputs = x.count // width, weight.count // width
    inputs = (x, weight) if bias is None else (x, weight, bias)
    sizes = (rows * width * x.itemsize, weight.count * x.itemsize, outputs * x.itemsize)
    node = e.node(inputs, partial(_linear_backward, e, sizes, bias is not None, x.node is not None))
    e.save(node, x, weight)
    out = e.new(rows * outputs, x.itemsize)
    out.node = node
    return out


def _linear_backward(
    e: Autograd, sizes: tuple[int, int, int], bias: bool, into: bool, grads: list[Gradient], saved: Saved
) -> list[Any]:
    """addmm (bias) makes the input's gradient first, mm (none) the weight's."""
    if bias:
        back = e.viewed(sizes[0]) if into else None
        return [back, e.viewed(sizes[1]), Summed(sizes[2])]
    weight = e.viewed(sizes[1])
    return [e.viewed(sizes[0]) if into else None, weight]


def layer_norm(e: Autograd, x: Tensor, width: int, parameters: tuple[Parameter, ...]) -> Tensor:
    """F.layer_norm: output, mean and inverse deviation; gain and bias where there are."""
    rows = x.count // width
    node = e.node((x, *parameters), partial(_layer_norm_backward, e, x.count * x.itemsize, width, len(parameters)))
    e.save(node, x, *parameters)
    out = e.new(x.count, x.itemsize)
    mean, deviation = e.new(rows, FP32), e.new(rows, FP32)
    e.save(node, mean, deviation)
    out.node = node
    return out


def _layer_norm_backward(
    e: Autograd, size: int, width: int, parameters: int, grads: list[Gradient], saved: Saved
) -> list[Any]:
    return [e.bytes(size), *(e.bytes(width * FP32) for _ in range(parameters))]


def pointwise(e: Autograd, x: Tensor) -> Tensor:
    """An activation that saves its input: GELU, SiLU."""
    node = e.node((x,), partial(one_gradient, e, x.count * x.itemsize))
    e.save(node, x)
    out = e.new(x.count, x.itemsize)
    out.node = node
    return out


def one_gradient(e: Autograd, size: int, grads: list[Gradient], saved: Saved) -> list[Any]:
    return [e.bytes(size)]


def copy(e: Autograd, x: Tensor, node: Node | None) -> Tensor:
    """A fresh tensor of x's size, made by `node`."""
    out = e.new(x.count, x.itemsize)
    out.node = node
    return out


def pass_gradient(grads: list[Gradient], saved: Saved) -> list[Any]:
    """The gradient of a copy is that of its source."""
    return list(grads)


def relu(e: Autograd, x: Tensor) -> Tensor:
    """ReLU keeps its output."""
    node = e.node((x,), partial(one_gradient, e, x.count * x.itemsize))
    out = e.new(x.count, x.itemsize)
    e.save(node, out)
    out.node = node
    return out


def relu_squared(e: Autograd, x: Tensor) -> Tensor:
    """relu(x).square()."""
    x = relu(e, x)
    node = e.node((x,), partial(_square_backward, e, x.count * x.itemsize))
    e.save(node, x)
    out = e.new(x.count, x.itemsize)
    out.node = node
    return out


def gelu_written_out(e: Autograd, x: Tensor, power: int | None = None) -> Tensor:
    """0.5 x (1 + tanh(c (x + 0.044715 x^3))), operator by operator; power: bytes of the type that x^3 is taken in."""
    half = scale(e, x)
    third = cast(e, x, power or x.itemsize)
    node = e.node((third,), partial(_square_backward, e, third.count * third.itemsize))  # of any power
    e.save(node, third)
    third = copy(e, third, node)
    third = scale(e, third)
    wide = add(e, x, third)
    del third
    wide = scale(e, wide)
    wide = relu(e, wide)  # tanh, like ReLU, keeps its output
    wide = copy(e, wide, e.node((wide,), pass_gradient))
    return multiply(e, half, wide)


def _square_backward(e: Autograd, size: int, grads: list[Gradient], saved: Saved) -> list[Any]:
    """grad * (2 * x): the power's derivative is a tensor of its own."""
    power = e.bytes(size)
    twice = e.bytes(size)
    out = e.bytes(size)
    del power, twice
    return [out]


def soft_cap(e: Autograd, x: Tensor) -> Tensor:
    """x.div_(cap).tanh_() * cap."""
    size = x.count * x.itemsize
    x = x.view(x.count, e.node((x,), partial(one_gradient, e, size)))
    node = e.node((x,), partial(one_gradient, e, size))
    x = x.view(x.count, node)
    e.save(node, x)
    return scale(e, x)


def scale(e: Autograd, x: Tensor) -> Tensor:
    """x times or divided by a number."""
    node = e.node((x,), partial(one_gradient, e, x.count * x.itemsize))
    out = e.new(x.count, x.itemsize)
    out.node = node
    return out


def multiply(e: Autograd, x: Tensor, y: Tensor) -> Tensor:
    """x * y: each is saved for the gradient of the other; y may want none. Types promote to the wider."""
    if y.node is None:
        node = e.node((x,), partial(one_gradient, e, x.count * x.itemsize))
        e.save(node, y)
    elif x.itemsize < y.itemsize:
        node = e.node((x, y), partial(_promoted_backward, e, x.count * y.itemsize, x.count * x.itemsize))
        e.save(node, x, y)
    else:
        node = e.node((x, y), partial(two_gradients, e, x.count * x.itemsize, y.count * y.itemsize))
        e.save(node, x, y)
    out = e.new(x.count, max(x.itemsize, y.itemsize))
    out.node = node
    return out


def _promoted_backward(e: Autograd, wide: int, narrow: int, grads: list[Gradient], saved: Saved) -> list[Any]:
    """Both gradients are made in the wider type; the first is then narrowed."""
    first = e.bytes(wide)
    return [Reduced(first, narrow), e.bytes(wide)]


def two_gradients(e: Autograd, x: int, y: int, grads: list[Gradient], saved: Saved) -> list[Any]:
    """A fresh gradient for each of two inputs, of x and y bytes."""
    return [e.bytes(x), e.bytes(y)]


def join(e: Autograd, x: Tensor, y: Tensor) -> Tensor:
    """torch.cat: a copy of both; the gradients are views of one."""
    node = e.node((x, y), _join_backward)
    out = e.new(x.count + y.count, x.itemsize)
    out.node = node
    return out


def _join_backward(grads: list[Gradient], saved: Saved) -> list[Any]:
    return [grads[0], grads[0]]


def expand(e: Autograd, x: Tensor, count: int) -> Tensor:
    """x seen `count` elements large, without a copy; backward sums."""
    return x.view(count, e.node((x,), partial(one_gradient, e, x.count * x.itemsize)))


def pad(e: Autograd, x: Tensor, count: int) -> Tensor:
    """F.pad: a larger copy; backward cuts, which copies too."""
    node = e.node((x,), partial(one_gradient, e, x.count * x.itemsize))
    out = e.new(count, x.itemsize)
    out.node = node
    return out


def sliced(e: Autograd, x: Tensor, count: int) -> Tensor:
    """A slice: a view; its gradient is set into zeros."""
    return x.view(count, e.node((x,), partial(one_gradient, e, x.count * x.itemsize)))


def split(e: Autograd, x: Tensor, counts: tuple[int, ...]) -> list[Tensor]:
    """Views of one storage; backward joins their gradients."""
    node = e.node((x,), partial(_split_backward, e, x.count * x.itemsize), len(counts))
    return [x.view(count, node, i) for i, count in enumerate(counts)]


def _split_backward(e: Autograd, size: int, grads: list[Gradient], saved: Saved) -> list[Any]:
    return [e.bytes(size)]


def embedding(e: Autograd, ids: Tensor, table: Parameter, width: int) -> Tensor:
    """A look-up; backward makes the whole table's gradient."""
    node = e.node((table,), partial(_embedding_backward, e, table.count * table.itemsize))
    e.save(node, ids)
    out = e.new(ids.count * width, table.itemsize)
    out.node = node
    return out


def _embedding_backward(e: Autograd, size: int, grads: list[Gradient], saved: Saved) -> list[Any]:
    return [e.bytes(size)]


def softmax_cross_entropy(e: Autograd, logits: Tensor, targets: Tensor) -> Tensor:
    """Summed cross-entropy: log-softmax, then the negative log-likelihood with its summed weight."""
    size = logits.count * logits.itemsize
    softmax = e.node((logits,), partial(_log_softmax_backward, e, size))
    log_probabilities = e.new(logits.count, logits.itemsize, "logits")
    log_probabilities.node = softmax
    e.save(softmax, log_probabilities)
    nll = e.node((log_probabilities,), partial(_nll_backward, e, size))
    e.save(nll, log_probabilities, targets)
    loss, weight = e.new(1, logits.itemsize, "logits"), e.new(1, logits.itemsize, "logits")
    e.save(nll, weight)
    loss.node = nll
    return loss


def _log_softmax_backward(e: Autograd, size: int, grads: list[Gradient], saved: Saved) -> list[Any]:
    return [e.bytes(size, "logits")]


def _nll_backward(e: Autograd, size: int, grads: list[Gradient], saved: Saved) -> list[Any]:
    return [e.bytes(size, "logits")]
