"""Eager PyTorch's autograd on tensors that weigh but hold nothing: which bytes live when, allocation by allocation.

`Autograd` makes the nodes of a graph (`graph.py`) as the model runs forward; `Autograd.backward` runs them in
PyTorch's order (the newest that is ready first, leaves at once), adds up gradients that meet, and recomputes what was
checkpointed.

Sources: torch/csrc/autograd (engine.cpp, input_buffer.cpp, saved_variable.cpp) and torch/utils/checkpoint.py for the
order; the witness is the replay of the real model (`reference_trainer/measure/replay.py`), every allocation in its
order.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from heapq import heappop, heappush
from sys import getrefcount
from typing import Any

from planner.memory.eager.graph import (
    Backward,
    CheckpointFrame,
    Gradient,
    Node,
    Reduced,
    Saved,
    Storage,
    Summed,
    Tensor,
)
from planner.memory.ledger import Ledger

ALONE = 2  # what sys.getrefcount says of an object that one name holds


class _Stop(Exception):
    """Raised when a recomputation has made the last tensor that backward needs."""


class Autograd:
    """The graph and its backward pass over one ledger.

    in_place: gradients that meet are added into one of them where nobody else holds it, as PyTorch does by default;
    False: always into a new tensor, as it does while a dispatch mode watches (which is how the witness sees it).
    """

    def __init__(self, ledger: Ledger, in_place: bool = False) -> None:
        self.ledger, self.in_place = ledger, in_place
        self.sequence = 0
        self.recording = True  # False: no graph is kept (evaluation)
        self.label = ""
        self.returned_logits: Storage | None = None  # by the pass that runs
        self.previous_logits: Storage | None = None  # those that the program handed out, until it does so again
        self.offloading = False  # True: the inputs of checkpoints wait in host memory
        # autocast's copies of parameters by unit of blocks, and how many more units there are like it
        self._units: list[tuple[dict[Tensor, Tensor], int]] = [({}, 0)]
        self.masks: tuple[Tensor | None, Tensor | None] = (None, None)  # given to blocks without and with a window
        self.saved_by_operator: dict[str, int] = {}
        self.gradients_exist = False  # True: a micro-batch before this one left gradients, to be added to
        self.gradients: list[Storage] = []  # those that became `.grad`
        self.gradient_widening = 1  # above 1: gradients are kept so many times as wide as backward makes them
        self._forward_frame: CheckpointFrame | None = None
        self._rerun_frame: CheckpointFrame | None = None

    # --- forward -----------------------------------------------------------------------------------------

    def empty(self, count: int, itemsize: int, component: str = "temporary") -> Tensor:
        """A fresh tensor."""
        return Tensor(Storage(self.ledger, count * itemsize, component), count, itemsize)

    def allocate(self, size: int, component: str = "temporary") -> Storage:
        """A fresh storage: what an operator allocates inside itself, or a gradient."""
        return Storage(self.ledger, size, component)

    def allocate_view(self, size: int) -> Storage:
        """A fresh gradient that is handed on as a view of itself."""
        made = Storage(self.ledger, size, "temporary")
        made.viewed = True
        return made

    def node(self, inputs: Sequence[Tensor], backward: Backward, outputs: int = 1) -> Node | None:
        """The graph's node of an operator that runs now; None where nothing is recorded."""
        if not self.recording:
            return None
        self.sequence += 1
        return Node(self.sequence, inputs, backward, outputs)

    def cached_cast(self, parameter: Tensor, itemsize: int, cast: Callable[[Autograd, Tensor, int], Tensor]) -> Tensor:
        """Autocast's copy of a parameter: made once, kept until the region is left."""
        if parameter.itemsize == itemsize:
            return parameter
        casts = self._units[-1][0]
        found = casts.get(parameter)
        if found is None:
            found = casts[parameter] = cast(self, parameter, itemsize)
        return found

    def enter_unit(self, added: int) -> None:
        """What follows is a unit of blocks; `added` more like it are not walked."""
        self._units.append(({}, added))

    def leave_autocast(self) -> None:
        """The autocast region ends: its copies of parameters go, but for those that are saved."""
        for casts, added in self._units:
            before = dict(self.ledger.live)
            casts.clear()
            if added:
                self.ledger.repeat(before, added)
        self._units = [({}, 0)]

    def save(self, node: Node | None, *tensors: Tensor | None) -> None:
        """`node` keeps these for backward; inside a checkpoint only their places are kept.

        Order matters: an operator saves its inputs before it makes its output, and a recomputation ends with the last
        tensor that was saved.
        """
        if node is None:
            return
        rerun, frame = self._rerun_frame, self._forward_frame
        for tensor in tensors:
            storage = None if tensor is None else tensor.storage
            if rerun is not None:
                assert rerun.made is not None
                rerun.made[len(rerun.made)] = storage
                if storage is not None and storage.component == "temporary":
                    storage.relabel("activations")
                if len(rerun.made) == rerun.total:
                    raise _Stop
            elif frame is not None:
                node.frame = frame
                node.positions.append(frame.total)
                frame.total += 1
            else:
                node.saved.append(storage)
                if storage is not None:
                    self._keep(storage)

    def _keep(self, storage: Storage) -> None:
        if storage.component == "temporary":
            storage.relabel("activations")
        if not storage.saved:
            storage.saved = True
            self.saved_by_operator[self.label] = self.saved_by_operator.get(self.label, 0) + storage.size

    def keep_for_all(self, tensor: Tensor) -> None:
        """What many operators will save is saved by the first: said beforehand, where not all of them are walked."""
        assert tensor.storage is not None
        self._keep(tensor.storage)

    def checkpoint(self, label: str, function: Callable[..., Tensor], *inputs: Tensor) -> Tensor:
        """torch.utils.checkpoint (not reentrant): run `function`, keep its inputs, run it again in backward.

        The inputs are held by whatever node of the function still has something saved.
        """
        if not self.recording or self._rerun_frame is not None:
            return function(self, *inputs)
        self.label = label
        if self.offloading:
            sizes = [(t.count, t.itemsize, t.node, t.slot) for t in inputs]
            frame = CheckpointFrame(lambda: function(self, *(self._fetched(*size) for size in sizes)))
        else:
            held = [t.view(t.count, t.node, t.slot) for t in inputs]
            for tensor in held:
                if tensor.storage is not None:
                    self._keep(tensor.storage)
            frame = CheckpointFrame(lambda: function(self, *held))
        self._forward_frame = frame
        try:
            return function(self, *inputs)
        finally:
            self._forward_frame = None
            del frame

    def _fetched(self, count: int, itemsize: int, node: Node | None, slot: int) -> Tensor:
        """A checkpoint's input, back from the host."""
        return Tensor(Storage(self.ledger, count * itemsize, "activations"), count, itemsize, node, slot)

    # --- backward ------------------------------------------------------------------------------------------

    def backward(self, root: Tensor) -> None:
        """From the gradient of `root`, made here, to those of all parameters."""
        assert root.node is not None
        waiting = _dependencies(root.node)
        first = self.allocate(root.nbytes)  # held to the end by the call of backward()
        root.node.grads = [first]
        ready: list[tuple[float, int, Node]] = [(-root.node.sequence, 0, root.node)]
        order = 0
        while ready:
            node = heappop(ready)[2]
            if node.backward is None:
                self._accumulate(node)
                continue
            outputs = self._run(node)
            for i, edge in enumerate(node.edges):
                gradient, outputs[i] = outputs[i], None
                if edge is None:
                    continue
                target, slot = edge
                self._add(target, slot, gradient)
                del gradient
                waiting[target] -= 1
                if not waiting[target]:
                    order += 1
                    heappush(ready, (-target.sequence, order, target))
            del outputs

    def _run(self, node: Node) -> list[Any]:
        grads, node.grads = node.grads, None
        assert grads is not None and node.backward is not None
        if node.frame is None:
            outputs = node.backward(grads, node.saved)
        else:
            outputs = node.backward(grads, self._recomputed(node, node.frame))
        for i, output in enumerate(outputs):
            if type(output) is Summed:
                outputs[i] = self.allocate(output)
            elif type(output) is Reduced:
                outputs[i] = output.storage if output.size == output.storage.size else self.allocate(output.size)
            output = None
        del grads
        node.saved, node.frame = [], None
        return outputs

    def _recomputed(self, node: Node, frame: CheckpointFrame) -> Saved:
        """What `node` saved, out of the rerun of its checkpoint; nobody else holds it afterwards."""
        if frame.made is None:
            frame.made = {}
            self._rerun_frame = frame
            self._units.append(({}, 0))  # the rerun is an autocast region of its own
            try:
                frame.rerun()
            except _Stop:
                pass
            finally:
                self._rerun_frame = None
                self._units.pop()
        made = frame.made
        return [made.pop(position) for position in node.positions]

    def _add(self, node: Node, slot: int, gradient: Gradient) -> None:
        """A gradient arrives at an input buffer."""
        if node.grads is None:
            node.grads = [None] * node.outputs
        there, node.grads[slot] = node.grads[slot], None
        if there is None or gradient is None:
            node.grads[slot] = gradient if there is None else there
        elif self.in_place and not there.viewed and getrefcount(there) == ALONE:
            node.grads[slot] = there
        else:
            node.grads[slot] = self.allocate(max(there.size, gradient.size), there.component)

    def _accumulate(self, node: Node) -> None:
        """A leaf's gradient becomes `.grad`, or is added into the one that is there."""
        grads, node.grads = node.grads, None
        assert grads is not None
        gradient = grads[0]
        if gradient is not None and not self.gradients_exist:
            if self.gradient_widening > 1:
                gradient = self.allocate(gradient.size * self.gradient_widening)
            gradient.relabel("gradients")
            self.gradients.append(gradient)


def _dependencies(root: Node) -> dict[Node, int]:
    """How many gradients each node waits for."""
    waiting: dict[Node, int] = {root: 0}
    stack = [root]
    while stack:
        for edge in stack.pop().edges:
            if edge is not None:
                node = edge[0]
                if node in waiting:
                    waiting[node] += 1
                else:
                    waiting[node] = 1
                    stack.append(node)
    return waiting
