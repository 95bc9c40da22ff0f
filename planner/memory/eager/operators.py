"""The operators of a transformer on fake tensors (sizes, no data): what each allocates and saves, in PyTorch's order.

`e` is the autograd that records them; sizes are elements. Almost every operator is one call of `operator` with a
backward made by `new_gradients`. A custom function of the reference model (RMSNorm, rotary embedding) is simulated line
by line in `layers.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from planner.formulas.itemsize import FP32
from planner.memory.eager.autograd import Autograd
from planner.memory.eager.graph import Backward, Gradient, Parameter, Reduced, Saved, Storage, Summed, Tensor
from planner.memory.kernel_scratch import TableGradient

_Sizes = tuple[int | tuple[int, int], ...]


def operator(
    e: Autograd,
    inputs: tuple[Tensor, ...],
    backward: Backward,
    count: int,
    itemsize: int,
    *,
    save: tuple[Tensor, ...] = (),
    save_output: bool = False,
    component: str = "temporary",
) -> Tensor:
    """The output of an operator: a new tensor of `count` elements. What it saves of its inputs, it saves before."""
    node = e.node(inputs, backward) if e.recording else None
    if save:
        e.save(node, *save)
    out = Tensor(Storage(e.ledger, count * itemsize, component), count, itemsize)
    if save_output:
        e.save(node, out)
    out.node = node
    return out


def new_gradients(
    e: Autograd,
    *sizes: int | tuple[int, int],
    component: str = "temporary",
    before: tuple[int, ...] = (),
    after: tuple[int, ...] = (),
) -> Backward:
    """A backward that makes a new gradient of each size (bytes); of a pair, one of the first size, then reduced to the
    second. before, after: bytes that it needs meanwhile, allocated before or after the gradients."""
    return partial(_new_gradients, e, sizes, component, before, after)


def _new_gradients(
    e: Autograd,
    sizes: _Sizes,
    component: str,
    before: tuple[int, ...],
    after: tuple[int, ...],
    grads: list[Gradient],
    saved: Saved,
) -> list[Any]:
    made: list[Any] = []
    scratch = [e.allocate(size) for size in before] if before else []
    for size in sizes:
        if isinstance(size, int):
            made.append(e.allocate(size, component))
        else:
            made.append(Reduced(e.allocate(size[0], component), size[1]))
    if after:
        scratch += [e.allocate(size) for size in after]
    return made


def pass_gradient(grads: list[Gradient], saved: Saved) -> list[Any]:
    """A backward whose input gradient is the output's."""
    return list(grads)


def elementwise(e: Autograd, x: Tensor, *, save: tuple[Tensor, ...] = (), save_output: bool = False) -> Tensor:
    """A new tensor like x; backward makes a gradient like x."""
    return operator(e, (x,), new_gradients(e, x.nbytes), x.count, x.itemsize, save=save, save_output=save_output)


def view(e: Autograd, x: Tensor, count: int) -> Tensor:
    """A view of x with `count` elements (a slice, an expanded tensor, an operator in place); backward copies."""
    return x.view(count, e.node((x,), new_gradients(e, x.nbytes)))


def gelu(e: Autograd, x: Tensor) -> Tensor:
    """An activation that saves its input: GELU, SiLU."""
    return elementwise(e, x, save=(x,))


def relu(e: Autograd, x: Tensor) -> Tensor:
    """An operator that saves its output: ReLU, tanh, sigmoid, softmax."""
    return elementwise(e, x, save_output=True)


def scale(e: Autograd, x: Tensor) -> Tensor:
    """x times or divided by a number."""
    return elementwise(e, x)


def copy(e: Autograd, x: Tensor) -> Tensor:
    """A new tensor like x, whose gradient is passed on: a copy, or a number or mask added."""
    return operator(e, (x,), pass_gradient, x.count, x.itemsize)


def pad(e: Autograd, x: Tensor, count: int) -> Tensor:
    """F.pad: a larger copy; backward slices, which copies too."""
    return operator(e, (x,), new_gradients(e, x.nbytes), count, x.itemsize)


def power(e: Autograd, x: Tensor) -> Tensor:
    """x to a power; backward is grad * (n * x^(n-1)), each factor in a tensor of its own."""
    return operator(e, (x,), new_gradients(e, x.nbytes, before=(x.nbytes,) * 2), x.count, x.itemsize, save=(x,))


def relu_squared(e: Autograd, x: Tensor) -> Tensor:
    """relu(x).square()."""
    x = relu(e, x)
    return power(e, x)


def written_out_gelu(e: Autograd, x: Tensor, power_itemsize: int | None = None) -> Tensor:
    """0.5 x (1 + tanh(c (x + 0.044715 x^3))), operator by operator; power_itemsize: that of x^3."""
    half = scale(e, x)
    cubed = cast(e, x, power_itemsize or x.itemsize)
    cubed = power(e, cubed)
    cubed = scale(e, cubed)
    wide = add(e, x, cubed)
    del cubed
    wide = scale(e, wide)
    wide = relu(e, wide)  # tanh
    wide = copy(e, wide)
    return multiply(e, half, wide)


def soft_cap(e: Autograd, x: Tensor) -> Tensor:
    """x.div_(cap).tanh_() * cap."""
    x = view(e, x, x.count)
    x = view(e, x, x.count)
    e.save(x.node, x)
    return scale(e, x)


def cast(e: Autograd, x: Tensor, itemsize: int) -> Tensor:
    """x.to(dtype): x itself where it has the type already; backward casts the gradient back."""
    if x.itemsize == itemsize:
        return x
    node = None if x.node is None else e.node((x,), new_gradients(e, x.nbytes))
    return Tensor(Storage(e.ledger, x.count * itemsize, "temporary"), x.count, itemsize, node)


def gradient_hook(e: Autograd, x: Tensor, reached: Callable[[], object]) -> Tensor:
    """x itself; `reached` is called when backward has its whole gradient."""

    def backward(grads: list[Gradient], saved: Saved) -> list[Any]:
        reached()
        return list(grads)

    return x.view(x.count, e.node((x,), backward))


def add(e: Autograd, x: Tensor, y: Tensor, broadcast: bool = False) -> Tensor:
    """x + y; types promote to the wider. broadcast: y has fewer dimensions, its gradient is summed."""
    itemsize = max(x.itemsize, y.itemsize)
    cast_back = [None if t.itemsize == itemsize else t.nbytes for t in ((x,) if broadcast else (x, y))]
    summed = Summed(x.count // y.count, y.count, itemsize) if broadcast else None
    backward = partial(_add_backward, e, cast_back, summed)
    return operator(e, (x, y), backward, max(x.count, y.count), itemsize)


def _add_backward(
    e: Autograd, cast_back: list[int | None], summed: Summed | None, grads: list[Gradient], saved: Saved
) -> list[Any]:
    """The output's gradient for both inputs, cast back for a narrow one, summed for a broadcast y."""
    made: list[Any] = [grads[0] if size is None else e.allocate(size) for size in cast_back]
    return made if summed is None else [*made, summed]


def multiply(e: Autograd, x: Tensor, y: Tensor) -> Tensor:
    """x * y: each is saved for the gradient of the other; y may need none. Types promote to the wider."""
    itemsize = max(x.itemsize, y.itemsize)
    if y.node is None:
        return operator(e, (x,), new_gradients(e, x.nbytes), x.count, itemsize, save=(y,))
    # a narrow x: its gradient is made in the wider type, then narrowed
    first = x.nbytes if x.itemsize == itemsize else (x.count * itemsize, x.nbytes)
    return operator(e, (x, y), new_gradients(e, first, y.nbytes), x.count, itemsize, save=(x, y))


def linear(e: Autograd, x: Tensor, weight: Tensor, bias: Tensor | None, width: int) -> Tensor:
    """x [.., K] times weight [M, K], of one type; `width` is K."""
    rows, outputs = x.count // width, weight.count // width
    inputs = (x, weight) if bias is None else (x, weight, bias)
    sizes = (x.nbytes if x.node is not None else None, weight.count * x.itemsize)
    backward = partial(matmul_backward, e, sizes, None if bias is None else Summed(rows, outputs, x.itemsize))
    return operator(e, inputs, backward, rows * outputs, x.itemsize, save=(x, weight))


def matmul_backward(
    e: Autograd, sizes: tuple[int | None, int], bias: Summed | None, grads: list[Gradient], saved: Saved
) -> list[Any]:
    """Gradients of both factors, as views. addmm (with bias) makes the first factor's first, mm the second's."""
    left, right = sizes
    if bias is not None:
        back = None if left is None else e.allocate_view(left)
        return [back, e.allocate_view(right), bias]
    weight = e.allocate_view(right)
    return [None if left is None else e.allocate_view(left), weight]


def join(e: Autograd, x: Tensor, y: Tensor) -> Tensor:
    """torch.cat: a copy of both; the gradients are views of one."""
    return operator(e, (x, y), _join_backward, x.count + y.count, x.itemsize)


def _join_backward(grads: list[Gradient], saved: Saved) -> list[Any]:
    return [grads[0], grads[0]]


def split(e: Autograd, x: Tensor, counts: tuple[int, ...]) -> list[Tensor]:
    """Views of one storage; backward joins their gradients."""
    node = e.node((x,), new_gradients(e, x.nbytes), len(counts))
    return [x.view(count, node, i) for i, count in enumerate(counts)]


def layer_norm(e: Autograd, x: Tensor, width: int, parameters: tuple[Parameter, ...]) -> Tensor:
    """F.layer_norm: saves x, gain and bias where there are any, and the fp32 mean and inverse deviation of each row."""
    rows = x.count // width
    backward = new_gradients(e, x.nbytes, *(width * FP32 for _ in parameters))
    out = operator(e, (x, *parameters), backward, x.count, x.itemsize, save=(x, *parameters))
    mean, deviation = e.empty(rows, FP32), e.empty(rows, FP32)
    e.save(out.node, mean, deviation)
    return out


def embedding(e: Autograd, ids: Tensor, table: Parameter, width: int) -> Tensor:
    """Rows of a table; backward makes the whole table's gradient."""
    backward = partial(_embedding_backward, e, table.nbytes, TableGradient(ids.count, width, table.count // width))
    return operator(e, (table,), backward, ids.count * width, table.itemsize, save=(ids,))


def _embedding_backward(
    e: Autograd, size: int, kernel: TableGradient, grads: list[Gradient], saved: Saved
) -> list[Any]:
    table = e.allocate(size)
    e.run_kernel(kernel)
    return [table]


def cross_entropy_sum(e: Autograd, logits: Tensor, targets: Tensor) -> Tensor:
    """Summed cross-entropy: log-softmax, then the negative log-likelihood with its summed weight."""
    backward = new_gradients(e, logits.nbytes, component="logits")
    itemsize = logits.itemsize
    log_probabilities = operator(e, (logits,), backward, logits.count, itemsize, save_output=True, component="logits")
    loss = operator(
        e, (log_probabilities,), backward, 1, itemsize, save=(log_probabilities, targets), component="logits"
    )
    e.save(loss.node, e.empty(1, itemsize, "logits"))
    return loss
