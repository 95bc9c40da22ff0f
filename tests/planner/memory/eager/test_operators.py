"""Simulated operators one by one: what each saves in forward and allocates in backward."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from planner.memory.eager import operators as op
from planner.memory.eager.autograd import Autograd
from planner.memory.eager.graph import Parameter, Tensor
from planner.memory.ledger import Ledger

COUNT = 100
FP32, BF16 = 4 * COUNT, 2 * COUNT

# saved bytes, allocations of forward, allocations of backward without the gradient of the result
CASES: dict[str, tuple[Callable[[Autograd, Tensor], Tensor], int, list[int], list[int]]] = {
    "gelu": (op.gelu, FP32, [FP32], [FP32]),
    "relu": (op.relu, FP32, [FP32], [FP32]),
    "scale": (op.scale, 0, [FP32], [FP32]),
    "copy": (op.copy, 0, [FP32], []),
    "power": (op.power, FP32, [FP32], [FP32] * 3),
    "squared relu": (op.relu_squared, FP32, [FP32] * 2, [FP32] * 4),
    "cast": (lambda e, x: op.cast(e, x, 2), 0, [BF16], [FP32]),
    "no cast": (lambda e, x: op.cast(e, x, 4), 0, [], []),
    "soft cap": (op.soft_cap, FP32, [FP32], [FP32] * 3),
    "pad": (lambda e, x: op.pad(e, x, 2 * COUNT), 0, [2 * FP32], [FP32]),
    "view": (lambda e, x: op.view(e, x, COUNT), 0, [], [FP32]),
    "squared": (lambda e, x: op.multiply(e, x, x), FP32, [FP32], [FP32] * 3),  # two gradients and their sum
    "doubled": (lambda e, x: op.add(e, x, x), 0, [FP32], [FP32]),  # the sum of two gradients that are one
}


@pytest.mark.parametrize("name", CASES)
def test_bytes_of_forward_and_backward(name: str) -> None:
    operator, saved, forward, backward = CASES[name]
    events: list[tuple[int, int]] = []
    e = Autograd(Ledger())
    x = op.copy(e, Parameter(COUNT, 4))
    e.ledger.events = events
    out = operator(e, x)
    assert [size for _, size in events if size] == forward
    assert sum(e.saved_by_operator.values()) == saved
    events.clear()
    e.backward(out)
    assert [size for _, size in events if size] == [out.nbytes, *backward]


def test_a_narrow_factor_has_its_gradient_made_wide_and_then_narrowed() -> None:
    events: list[tuple[int, int]] = []
    e = Autograd(Ledger())
    narrow, wide = op.copy(e, Parameter(COUNT, 2)), op.copy(e, Parameter(COUNT, 4))
    out = op.multiply(e, narrow, wide)
    e.ledger.events = events
    e.backward(out)
    assert (out.nbytes, [size for _, size in events if size]) == (FP32, [FP32, FP32, FP32, BF16])


@pytest.mark.parametrize("biased", [False, True])
def test_a_linear_layer_sums_its_bias_gradient_last(biased: bool) -> None:
    events: list[tuple[int, int]] = []
    e = Autograd(Ledger())
    x, weight, bias = op.copy(e, Parameter(6 * 10, 4)), Parameter(10 * 3, 4), Parameter(3, 4)
    out = op.linear(e, x, weight, bias if biased else None, 10)
    assert out.count == 6 * 3
    e.ledger.events = events
    e.backward(out)
    grads = [4 * 60, 4 * 30, 4 * 3] if biased else [4 * 30, 4 * 60]
    assert [size for _, size in events if size] == [out.nbytes, *grads]
