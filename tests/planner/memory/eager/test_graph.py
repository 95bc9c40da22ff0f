"""Storages and tensors: counted from their creation until their last reference is gone."""

from __future__ import annotations

from planner.memory.eager.graph import Node, Parameter, Storage, Tensor
from planner.memory.ledger import Ledger


def test_a_storage_lives_as_long_as_anything_refers_to_it() -> None:
    ledger = Ledger()
    x = Tensor(Storage(ledger, 24, "temporary"), 6, 4)
    part = x.view(2, None)
    assert (x.nbytes, part.nbytes, ledger.total) == (24, 8, 24)
    del x
    assert ledger.total == 24
    del part
    assert ledger.total == 0


def test_a_relabelled_tensor_is_released_from_its_new_component() -> None:
    ledger = Ledger()
    x = Tensor(Storage(ledger, 24, "temporary"), 6, 4)
    x.relabel("logits")
    assert (ledger.live["temporary"], ledger.live["logits"]) == (0, 24)
    del x
    assert ledger.live["logits"] == ledger.total == 0


def test_a_node_has_an_edge_for_each_input_that_needs_a_gradient() -> None:
    ledger, parameter = Ledger(), Parameter(6, 4)
    data = Tensor(Storage(ledger, 24, "temporary"), 6, 4)
    split = Node(1, (parameter,), None, outputs=2)
    second = data.view(3, split, 1)
    node = Node(2, (second, data, parameter), None)
    assert node.edges == [(split, 1), None, (parameter.node, 0)]
