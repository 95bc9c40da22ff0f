"""The simulated autograd: what it saves, in which order backward runs, and what checkpointing keeps."""

from __future__ import annotations

import pytest

from planner.memory.eager import operators as op
from planner.memory.eager.autograd import Autograd
from planner.memory.eager.graph import Parameter, Tensor
from planner.memory.ledger import Ledger

COUNT = 100
NBYTES = 4 * COUNT


def start(*, in_place: bool = False) -> tuple[Autograd, Tensor]:
    """An autograd and a tensor whose gradient reaches a parameter."""
    e = Autograd(Ledger(), in_place)
    return e, op.copy(e, Parameter(COUNT, 4))


def two_gelus(e: Autograd, x: Tensor) -> Tensor:
    return op.gelu(e, op.gelu(e, x))


def test_saved_tensors_are_activations_of_the_operator_that_saved_them_first() -> None:
    e, x = start()
    e.label = "one"
    y = op.gelu(e, x)
    e.label = "two"
    op.multiply(e, x, y)
    assert e.saved_by_operator == {"one": NBYTES, "two": NBYTES}
    assert e.ledger.live["activations"] == 2 * NBYTES


def test_backward_frees_what_was_saved_and_ends_with_the_parameters_gradient() -> None:
    e, x = start()
    loss = two_gelus(e, x)
    del x
    e.backward(loss)
    del loss
    assert e.ledger.live["activations"] == 0
    assert e.ledger.total == e.ledger.live["gradients"] == NBYTES
    assert len(e.gradients) == 1


@pytest.mark.parametrize(("in_place", "sums"), [(True, 0), (False, 1)])
def test_gradients_that_meet_are_added_in_place_or_into_a_new_tensor(in_place: bool, sums: int) -> None:
    events: list[tuple[int, int]] = []
    e, x = start(in_place=in_place)
    loss = op.add(e, op.scale(e, x), op.scale(e, x))
    e.ledger.events = events
    e.backward(loss)
    made = [size for _, size in events if size]
    assert made == [NBYTES] * (1 + 2 + sums)  # of the loss, of each scale, of their sum


def test_an_existing_gradient_is_added_to() -> None:
    e, x = start()
    e.gradients_exist = True
    e.backward(op.scale(e, x))
    assert e.gradients == [] and e.ledger.live["gradients"] == 0


def test_gradients_can_be_wider_than_backward_makes_them() -> None:
    e, x = start()
    e.gradient_widening = 2
    e.backward(op.scale(e, x))
    assert e.ledger.live["gradients"] == 2 * NBYTES


@pytest.mark.parametrize("offloading", [False, True])
def test_a_checkpoint_keeps_its_input_only_and_recomputes_in_backward(offloading: bool) -> None:
    e, x = start()
    e.offloading = offloading
    loss = e.checkpoint("block", two_gelus, x)
    del x
    kept = 0 if offloading else NBYTES  # offloaded: the input is in host memory
    assert e.ledger.live["activations"] == kept
    assert e.saved_by_operator == ({} if offloading else {"block": NBYTES})
    e.ledger.phase("backward")
    e.backward(loss)
    del loss
    assert e.ledger.phases[-1].at_peak["activations"] == 2 * NBYTES  # the input and the first activation
    assert e.ledger.total == e.ledger.live["gradients"] == NBYTES


def test_nothing_is_saved_without_recording() -> None:
    e, x = start()
    e.recording = False
    y = e.checkpoint("block", two_gelus, x)
    assert y.node is None and e.saved_by_operator == {} and e.ledger.total == 2 * NBYTES


def test_a_cast_of_a_parameter_is_cached_until_autocast_ends() -> None:
    e = Autograd(Ledger())
    weight = Parameter(COUNT, 4)
    narrow = e.cached_cast(weight, 2, op.cast)
    assert e.cached_cast(weight, 2, op.cast) is narrow and e.cached_cast(weight, 4, op.cast) is weight
    del narrow
    assert e.ledger.total == NBYTES // 2
    e.leave_autocast()
    assert e.ledger.total == 0
