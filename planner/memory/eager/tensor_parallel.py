"""What tensor parallelism adds to the operators of one GPU: collectives, its rows of the table, its part of the loss.

Simulates PyTorch's DTensor styles (ColwiseParallel, RowwiseParallel, loss_parallel), whose collectives are functional:
each makes a new tensor. Tokens are the second dimension of what is gathered or scattered, so that parts are copied
into another order; only one sequence is gathered without it. The table is Megatron-LM's vocabulary-parallel one.

Source: torch/distributed of PyTorch 2.13 (_functional_collectives.py, tensor/parallel/loss.py). Checked against the
reference model under these styles (tests/reference_trainer/predictions/tensor_parallel.py).
"""

from __future__ import annotations

from functools import partial
from typing import Any

from planner.formulas.itemsize import FP32, INT64
from planner.memory.eager import operators as op
from planner.memory.eager.autograd import Autograd
from planner.memory.eager.context import SimulationContext
from planner.memory.eager.graph import Gradient, Parameter, Saved, Tensor


def entering(e: Autograd, ctx: SimulationContext, x: Tensor) -> Tensor:
    """What the tensor-parallel GPUs read together: all tokens of x, or x itself, whose gradient they sum."""
    if ctx.parallel.tp == 1:
        return x
    return _gather(e, ctx, x) if ctx.parallel.sp else op.view(e, x, x.count)


def leaving(e: Autograd, ctx: SimulationContext, x: Tensor) -> Tensor:
    """The sum of what the tensor-parallel GPUs made: of all tokens, or of this GPU's."""
    if ctx.parallel.tp == 1:
        return x
    return _scatter(e, ctx, x) if ctx.parallel.sp else op.copy(e, x)


def _gather(e: Autograd, ctx: SimulationContext, x: Tensor) -> Tensor:
    """All parts of x by token; backward reduces and scatters the gradient."""
    count = x.count * ctx.parallel.tp
    node = e.node((x,), partial(_scattered, e, count * x.itemsize, x.nbytes))
    out = e.empty(count, x.itemsize)
    if ctx.training.micro_batch > 1:
        out = e.empty(count, x.itemsize)  # the one in the order of GPUs is freed once it is copied
    out.node = node
    return out


def _scatter(e: Autograd, ctx: SimulationContext, x: Tensor) -> Tensor:
    """This GPU's tokens of the sum of x over the GPUs; backward gathers the gradient."""
    node = e.node((x,), partial(_gathered, e, x.nbytes, ctx.training.micro_batch))
    in_order = e.empty(x.count, x.itemsize)
    out = e.empty(x.count // ctx.parallel.tp, x.itemsize)
    del in_order
    out.node = node
    return out


def _scattered(e: Autograd, size: int, part: int, grads: list[Gradient], saved: Saved) -> list[Any]:
    in_order = e.allocate(size)
    out = e.allocate(part)
    del in_order
    return [out]


def _gathered(e: Autograd, size: int, micro_batch: int, grads: list[Gradient], saved: Saved) -> list[Any]:
    out = e.allocate(size)
    if micro_batch > 1:
        out = e.allocate(size)
    return [out]


def rows_of_table(e: Autograd, ids: Tensor, table: Parameter, width: int) -> Tensor:
    """This GPU's rows of a table, zeros for ids that others have; backward makes the gradient of these rows."""
    below, above = e.empty(ids.count, 1), e.empty(ids.count, 1)
    elsewhere = e.empty(ids.count, 1)
    del below, above
    own = e.empty(ids.count, INT64)
    found = op.embedding(e, own, table, width)
    del own
    masked = op.view(e, found, found.count)  # filled in place; backward copies the gradient and fills the copy
    e.save(masked.node, elsewhere)
    return masked


def parallel_cross_entropy_sum(e: Autograd, logits: Tensor, targets: Tensor) -> Tensor:
    """Summed cross-entropy of this GPU's logits; the GPUs share the largest logit and the sum of each token.

    The gradient of the logits is made by the backward pass of the likelihood; that of the log-softmax passes it on.
    """
    tokens, itemsize = targets.count, logits.itemsize
    node = e.node((logits,), op.pass_gradient)
    log_probabilities = _log_softmax(e, logits, tokens)
    e.save(node, log_probabilities)
    log_probabilities.node = node
    backward = partial(_cross_entropy_backward, e, logits.nbytes, tokens)
    loss = op.operator(
        e, (log_probabilities,), backward, 1, itemsize, save=(log_probabilities, targets), component="logits"
    )
    e.save(loss.node, e.empty(1, itemsize, "logits"))
    return loss


def _log_softmax(e: Autograd, logits: Tensor, tokens: int) -> Tensor:
    """Operator by operator: less the largest, less the logarithm of the sum of exponentials."""
    row = tokens * logits.itemsize
    largest = e.allocate(row)
    largest = e.allocate(row)  # of all GPUs
    shifted = e.allocate(logits.nbytes, "logits")
    exponentials = e.allocate(logits.nbytes, "logits")
    total = e.allocate(row)
    del exponentials
    total = e.allocate(row)  # of all GPUs
    logarithm = e.allocate(row)
    out = e.empty(logits.count, logits.itemsize, "logits")
    del largest, shifted, total, logarithm
    return out


def _cross_entropy_backward(e: Autograd, size: int, tokens: int, grads: list[Gradient], saved: Saved) -> list[Any]:
    """(targets' minus ones + exp(log-probabilities)) times the gradient: each in a tensor of its own."""
    minus_ones = e.allocate(size, "logits")
    # targets, their places among this GPU's rows, whether they are elsewhere, what is added, numbers, the gradient
    of_tokens = [e.allocate(tokens * each) for each in (INT64, INT64, 1, FP32, INT64, FP32)]
    exponentials = e.allocate(size, "logits")
    total = e.allocate(size, "logits")
    del exponentials
    out = e.allocate(size, "logits")
    del minus_ones, total, of_tokens
    return [out]
