"""PyTorch's eager autograd on fake tensors (sizes, no data): which bytes live when, allocation by allocation.

`Autograd` makes the nodes of a graph (`graph.py`) as the model runs forward. `Autograd.backward` runs them in PyTorch's
order: the newest ready node first, parameters at once. It adds up the gradients of one tensor and recomputes what was
checkpointed.

Sources: torch/csrc/autograd (engine.cpp, input_buffer.cpp, saved_variable.cpp) and torch/utils/checkpoint.py. Checked
against the real model on PyTorch's fake tensors (`reference_trainer/measure/replay.py`): every allocation, in order.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from heapq import heappop, heappush
from sys import getrefcount
from typing import Any

from planner.formulas.itemsize import FP32
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
    Viewed,
)
from planner.memory.kernel_scratch import ColumnSum, KernelScratch, Multiprocessors, scratch_sizes
from planner.memory.ledger import Ledger

ONE_REFERENCE = 2  # result of sys.getrefcount for an object that one name refers to


class _Stop(Exception):
    """Raised when recomputation has made the last tensor that backward needs."""


class Autograd:
    """Records the graph of one micro-batch and runs its backward pass; all bytes go through one ledger.

    in_place: two gradients of a tensor are added into one of them if nothing else refers to it, as PyTorch does by
    default. False: always into a new tensor, as PyTorch does under a dispatch mode (which the reference replay uses).
    """

    def __init__(self, ledger: Ledger, in_place: bool = False) -> None:
        self.ledger, self.in_place = ledger, in_place
        self.sequence = 0
        self.recording = True  # False: no graph is recorded (evaluation)
        self.label = ""
        self.returned_logits: Storage | None = None  # by the running forward pass
        self.previous_logits: Storage | None = (
            None  # returned by the last micro-batch, alive until the next returns its own
        )
        self.offloading = False  # True: the inputs of checkpoints are kept in host memory
        # autocast's cached casts of parameters, by unit of blocks, and how many more units are like it
        self._units: list[tuple[dict[Tensor, Tensor], int]] = [({}, 0)]
        self.masks: tuple[Tensor | None, Tensor | None] = (None, None)  # for blocks without and with a window
        self.saved_by_operator: dict[str, int] = {}
        self.gradients_exist = False  # True: gradients of an earlier micro-batch exist and are added to
        self.gradients: list[Storage] = []  # the parameters' `.grad`
        self.gradient_shards = 1  # ZeRO-2: only this part of a gradient stays once it is reduced
        self.expert_shards = 1  # the same of experts, which lie on fewer GPUs; their parameters' nodes:
        self.expert_nodes: set[Node] = set()
        self.made_itemsize = FP32  # of the gradients that backward makes
        self.gradient_widening = 1  # `.grad` is this many times as wide as the gradients that backward makes
        self.card: Multiprocessors | None = None  # whose kernels take scratch; None: other kernels run
        self._forward_frame: CheckpointFrame | None = None
        self._rerun_frame: CheckpointFrame | None = None

    # --- forward -----------------------------------------------------------------------------------------

    def empty(self, count: int, itemsize: int, component: str = "temporary") -> Tensor:
        """A new tensor of `count` elements."""
        return Tensor(Storage(self.ledger, count * itemsize, component), count, itemsize)

    def allocate(self, size: int, component: str = "temporary") -> Storage:
        """A new storage of `size` bytes: scratch space of an operator, or a gradient."""
        return Storage(self.ledger, size, component)

    def allocate_view(self, size: int) -> Storage:
        """A new gradient that is passed on as a view."""
        return Viewed(self.ledger, size, "temporary")

    def scratch(self, *sizes: int) -> None:
        """Storages that nothing refers to once the last of them is made: each comes and goes in the ledger alone."""
        allocate, release = self.ledger.allocate, self.ledger.release
        keys = [allocate("temporary", size) for size in sizes]
        for size, key in zip(sizes, keys, strict=True):
            release("temporary", size, key)

    def run_kernel(self, kernel: KernelScratch) -> None:
        """Count the scratch of a kernel of eager PyTorch, which is freed when it ends."""
        if self.card is not None:
            self.ledger.run_kernel(kernel, scratch_sizes(kernel, self.card))

    def summed(self, rows: int, columns: int, itemsize: int) -> Storage:
        """The sum over the rows of a matrix."""
        out = self.allocate(columns * itemsize)
        self.run_kernel(ColumnSum(rows, columns, itemsize))
        return out

    def last_of(self, *sizes: int) -> Storage:
        """The last of storages that are each made from the one before, which is then freed."""
        allocate, release = self.ledger.allocate, self.ledger.release
        before, key = sizes[0], allocate("temporary", sizes[0])
        for size in sizes[1:-1]:
            made = allocate("temporary", size)
            release("temporary", before, key)
            before, key = size, made
        last = Storage(self.ledger, sizes[-1], "temporary")
        release("temporary", before, key)
        return last

    def node(self, inputs: Sequence[Tensor], backward: Backward, outputs: int = 1) -> Node | None:
        """The graph node of an operator that runs now; None if nothing is recorded."""
        if not self.recording:
            return None
        self.sequence += 1
        return Node(self.sequence, inputs, backward, outputs)

    def cached_cast(self, parameter: Tensor, itemsize: int, cast: Callable[[Autograd, Tensor, int], Tensor]) -> Tensor:
        """Autocast's cast of a parameter: made once, cached until the autocast region ends."""
        if parameter.itemsize == itemsize:
            return parameter
        casts = self._units[-1][0]
        found = casts.get(parameter)
        if found is None:
            found = casts[parameter] = cast(self, parameter, itemsize)
        return found

    def enter_unit(self, added: int) -> None:
        """A unit of blocks begins; `added` more units like it are not simulated but added at once."""
        self._units.append(({}, added))

    def leave_autocast(self) -> None:
        """The autocast region ends: its cached casts are freed, except those saved for backward."""
        for casts, added in self._units:
            before = dict(self.ledger.live)
            casts.clear()
            if added:
                self.ledger.repeat(before, added)
        self._units = [({}, 0)]

    def save(self, node: Node | None, *tensors: Tensor | None) -> None:
        """`node` saves these for backward; inside a checkpoint it saves only their positions.

        Order matters: an operator saves its inputs before it makes its output, and recomputation ends with the last
        tensor that was saved.
        """
        if node is None:
            return
        rerun, frame = self._rerun_frame, self._forward_frame
        if rerun is None and frame is None:
            for tensor in tensors:
                storage = None if tensor is None else tensor.storage
                node.saved.append(storage)
                if storage is not None and not storage.saved:
                    self._keep(storage)
            return
        for tensor in tensors:
            storage = None if tensor is None else tensor.storage
            if rerun is not None:
                assert rerun.made is not None
                rerun.made[len(rerun.made)] = storage
                if storage is not None and storage.component == "temporary":
                    storage.relabel("activations")
                if len(rerun.made) == rerun.total:
                    raise _Stop
            else:
                assert frame is not None
                node.frame = frame
                node.positions.append(frame.total)
                frame.total += 1

    def _keep(self, storage: Storage) -> None:
        if storage.component == "temporary":
            storage.component = "activations"
            self.ledger.relabel("temporary", "activations", storage.size)
        if not storage.saved:
            storage.saved = True
            self.saved_by_operator[self.label] = self.saved_by_operator.get(self.label, 0) + storage.size

    def keep_for_all(self, tensor: Tensor) -> None:
        """Count `tensor` as saved by the current label: many operators save it, and not all of them are simulated."""
        assert tensor.storage is not None
        self._keep(tensor.storage)

    def checkpoint(self, label: str, function: Callable[..., Tensor], *inputs: Tensor) -> Tensor:
        """torch.utils.checkpoint (not reentrant): run `function`, keep its inputs, run it again in backward.

        The inputs stay alive as long as any node of the function still has saved tensors.
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
        """A checkpoint's input, copied back from the host."""
        return Tensor(Storage(self.ledger, count * itemsize, "activations"), count, itemsize, node, slot)

    # --- backward ------------------------------------------------------------------------------------------

    def backward(self, root: Tensor, received: bool = False) -> None:
        """Run backward from `root` to the gradients of all parameters. received: its gradient lies in a buffer."""
        assert root.node is not None
        waiting = _dependencies(root.node)
        # alive until backward() returns
        first = self.allocate_view(0) if received else self.allocate(root.nbytes)
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
                outputs[i] = self.summed(output.rows, output.columns, output.itemsize)
            elif type(output) is Reduced:
                outputs[i] = output.storage if output.size == output.storage.size else self.allocate(output.size)
            output = None
        del grads
        node.saved, node.frame = [], None
        return outputs

    def _recomputed(self, node: Node, frame: CheckpointFrame) -> Saved:
        """What `node` saved, taken from the recomputation of its checkpoint; then only the caller refers to it."""
        if frame.made is None:
            frame.made = {}
            self._rerun_frame = frame
            self._units.append(({}, 0))  # recomputation is an autocast region of its own
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
        """Add `gradient` to the input buffer of `node`."""
        if node.grads is None:
            node.grads = [None] * node.outputs
        there, node.grads[slot] = node.grads[slot], None
        if there is None or gradient is None:
            node.grads[slot] = gradient if there is None else there
        elif self.in_place and not there.viewed and getrefcount(there) == ONE_REFERENCE:
            node.grads[slot] = there
        else:
            node.grads[slot] = self.allocate(max(there.size, gradient.size), there.component)

    def _accumulate(self, node: Node) -> None:
        """A parameter's gradient becomes `.grad`, or is added to it."""
        grads, node.grads = node.grads, None
        assert grads is not None
        gradient = grads[0]
        if gradient is not None and not self.gradients_exist:
            shards = self.expert_shards if node in self.expert_nodes else self.gradient_shards
            kept = self.kept_bytes(gradient.size, shards)
            if kept != gradient.size:
                gradient = self.allocate(kept)
            gradient.relabel("gradients")
            self.gradients.append(gradient)

    def kept_bytes(self, made: int, shards: int | None = None) -> int:
        """Bytes that stay of a gradient of `made` bytes: widened, and under ZeRO-2 this device's part."""
        shards = self.gradient_shards if shards is None else shards
        count = -(-made // self.made_itemsize // shards) if shards > 1 else 0
        return (count * self.made_itemsize if count else made) * self.gradient_widening


def _dependencies(root: Node) -> dict[Node, int]:
    """The number of gradients that each node waits for."""
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
