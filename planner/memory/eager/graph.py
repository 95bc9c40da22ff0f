"""The parts of an autograd graph: storages, fake tensors (sizes, no data), and the nodes between them.

A `Tensor` has a size and no contents. The ledger counts its storage from when it is made until the last reference to it
goes, by Python's reference counting, as in PyTorch. So a model written with these tensors (`model.py`) keeps and frees
what the same model written in PyTorch keeps and frees. A `Node` remembers what backward needs; `autograd.py` makes the
nodes and runs them.

Source: torch/csrc/autograd (saved_variable.cpp) and torch/utils/checkpoint.py.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from planner.memory.ledger import Ledger


class Storage:
    """Bytes in the ledger for as long as this object lives."""

    __slots__ = ("component", "key", "ledger", "saved", "size")
    viewed = False

    def __init__(self, ledger: Ledger, size: int, component: str) -> None:
        self.ledger, self.size, self.component, self.saved = ledger, size, component, False
        self.key = ledger.allocate(component, size)

    def __del__(self) -> None:
        self.ledger.release(self.component, self.size, self.key)

    def relabel(self, component: str) -> None:
        """Count the same bytes under another component."""
        if component != self.component:
            self.ledger.relabel(self.component, component, self.size)
            self.component = component


class Viewed(Storage):
    """A gradient passed on as a view: its base counts as another reference."""

    __slots__ = ()
    viewed = True


class Tensor:
    """`count` elements of `itemsize` bytes each, on a storage (None: a parameter, counted elsewhere).

    node: the operator that made it, None if it needs no gradient. slot: which of the operator's outputs it is.
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
        """Count its storage under another component."""
        if self.storage is not None:
            self.storage.relabel(component)

    def view(self, count: int, node: Node | None, slot: int = 0) -> Tensor:
        """A view: the same storage with `count` elements, made by `node`."""
        return Tensor(self.storage, count, self.itemsize, node, slot)


Gradient = Storage | None
Backward = Callable[[list[Gradient], "Saved"], list[Any]]
Saved = list[Storage | None]


class Summed:
    """Stands for a gradient: the output's, a matrix of `rows`, summed over them after the operator returns."""

    __slots__ = ("columns", "itemsize", "rows")

    def __init__(self, rows: int, columns: int, itemsize: int) -> None:
        self.rows, self.columns, self.itemsize = rows, columns, itemsize


class Reduced:
    """Stands for a gradient: `storage`, reduced to `size` bytes after the operator returns."""

    __slots__ = ("size", "storage")

    def __init__(self, storage: Storage, size: int) -> None:
        self.storage, self.size = storage, size


class Node:
    """One operator of the graph: where its gradients go, what it saved, and how backward makes the gradients."""

    __slots__ = ("backward", "edges", "frame", "grads", "outputs", "positions", "saved", "sequence")

    def __init__(self, sequence: float, inputs: Sequence[Tensor], backward: Backward | None, outputs: int = 1) -> None:
        self.sequence, self.backward, self.outputs = sequence, backward, outputs
        self.edges = [None if t.node is None else (t.node, t.slot) for t in inputs] if inputs else []
        self.saved: Saved = []
        self.frame: CheckpointFrame | None = None
        self.positions: list[int] = []
        self.grads: list[Gradient] | None = None


AT_ONCE = float("inf")  # of all ready nodes backward takes a parameter's at once


class Parameter(Tensor):
    """A leaf of the graph; its storage is counted with all weights."""

    __slots__ = ()

    def __init__(self, count: int, itemsize: int) -> None:
        self.storage, self.count, self.itemsize, self.slot = None, count, itemsize, 0
        self.node = Node(AT_ONCE, (), None)


class CheckpointFrame:
    """A checkpointed segment of the forward pass: how to run it again, and what the rerun made, by position."""

    __slots__ = ("made", "rerun", "total")

    def __init__(self, rerun: Callable[[], object]) -> None:
        self.rerun, self.total = rerun, 0
        self.made: dict[int, Storage | None] | None = None
