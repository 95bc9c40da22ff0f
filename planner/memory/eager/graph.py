"""What a graph of autograd is made of: storages, tensors that weigh but hold nothing, and the nodes between them.

A `Tensor` here has a size and no contents. Its storage is counted in the ledger when it is made and given back
when the last reference goes, by Python's own reference counting, just as a PyTorch tensor's is; so a model written
with these tensors (`model.py`) holds and frees what the same model written in PyTorch holds and frees. A `Node`
remembers what backward needs; `autograd.py` makes the nodes and runs them.

Source: torch/csrc/autograd (saved_variable.cpp) and torch/utils/checkpoint.py.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from planner.memory.ledger import Ledger


class Storage:
    """Bytes in the ledger for as long as this object lives."""

    __slots__ = ("component", "key", "ledger", "saved", "size", "viewed")

    def __init__(self, ledger: Ledger, size: int, component: str) -> None:
        self.ledger, self.size, self.component, self.saved = ledger, size, component, False
        self.viewed = False  # a gradient reached through a view: its base counts as another holder
        self.key = ledger.allocate(component, size)

    def __del__(self) -> None:
        self.ledger.release(self.component, self.size, self.key)

    def relabel(self, component: str) -> None:
        """The same bytes under another component."""
        if component != self.component:
            self.ledger.relabel(self.component, component, self.size)
            self.component = component


class Tensor:
    """`count` elements of `itemsize` bytes each, on a storage (None: a parameter, counted elsewhere).

    node: the operator that made it, None where no gradient is wanted; slot: which of its outputs this is.
    """

    __slots__ = ("count", "itemsize", "node", "slot", "storage")

    def __init__(
        self, storage: Storage | None, count: int, itemsize: int, node: Node | None = None, slot: int = 0
    ) -> None:
        self.storage, self.count, self.itemsize, self.node, self.slot = storage, count, itemsize, node, slot

    @property
    def nbytes(self) -> int:
        """Bytes of its elements."""
        return self.count * self.itemsize

    def relabel(self, component: str) -> None:
        """Its storage counts under another component."""
        if self.storage is not None:
            self.storage.relabel(component)

    def view(self, count: int, node: Node | None, slot: int = 0) -> Tensor:
        """A view: other elements count, the same storage."""
        return Tensor(self.storage, count, self.itemsize, node, slot)


Gradient = Storage | None
Backward = Callable[[list[Gradient], "Saved"], list[Any]]
Saved = list[Storage | None]


class Summed(int):
    """In place of a gradient: the output's gradient, summed to this many bytes once the operator is done."""


class Reduced:
    """In place of a gradient: one of this storage's size, summed to fewer bytes once the operator is done."""

    __slots__ = ("size", "storage")

    def __init__(self, storage: Storage, size: int) -> None:
        self.storage, self.size = storage, size


class Node:
    """One operator of the graph: where its gradients go, what it saved, and how it makes the gradients."""

    __slots__ = ("backward", "edges", "frame", "grads", "outputs", "positions", "saved", "sequence")

    def __init__(self, sequence: float, inputs: Sequence[Tensor], backward: Backward | None, outputs: int = 1) -> None:
        self.sequence, self.backward, self.outputs = sequence, backward, outputs
        self.edges = [None if t.node is None else (t.node, t.slot) for t in inputs]
        self.saved: Saved = []
        self.frame: CheckpointFrame | None = None
        self.positions: list[int] = []
        self.grads: list[Gradient] | None = None


class Parameter(Tensor):
    """A leaf; its storage is counted with all weights."""

    __slots__ = ()

    def __init__(self, count: int, itemsize: int) -> None:
        super().__init__(None, count, itemsize, Node(float("inf"), (), None))


class CheckpointFrame:
    """A checkpointed piece of the forward pass: what it takes to run it again, and what the rerun made."""

    __slots__ = ("made", "rerun", "total")

    def __init__(self, rerun: Callable[[], object]) -> None:
        self.rerun, self.total = rerun, 0
        self.made: dict[int, Storage | None] | None = None
