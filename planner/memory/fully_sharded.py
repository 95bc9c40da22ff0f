"""Simulates FSDP2: when the shards of a block are gathered, freed, and its gradients reduced, allocation by allocation.

`torch.distributed.fsdp.fully_shard` on every block and then on the model. A block's weights are gathered before its
forward pass and freed after it; backward gathers the next block's while one runs; a block's gradients are copied to one
buffer, reduced to this device's shard, and freed. What no block holds stays gathered from forward to the end of
backward. Weights are gathered in the compute type, gradients reduced in the type of the stored ones: fp32 for fp32
weights, as torchtitan's defaults have it.

Source: torch/distributed/fsdp/_fully_shard of PyTorch 2.13 (_fsdp_param_group.py, _fsdp_collectives.py): references
that keep a buffer alive there (the last gathered buffer, the last reduced one, the last gradient of a loop) do here.
"""

from __future__ import annotations

from collections.abc import Sequence

from planner.counts.run import Resolved
from planner.counts.shards import ShardedGroup, sharded_groups
from planner.memory.eager.autograd import Autograd
from planner.memory.eager.graph import Storage

BUFFERS = "communication"
ROOT = -1


class FullySharded:
    """The gathered weights, buffers and reduced gradients of one model; blocks by number, ROOT is the rest."""

    def __init__(self, run: Resolved, e: Autograd, blocks: Sequence[int]) -> None:
        """blocks: the numbers of those that are simulated, in order."""
        self.e, self.itemsize = e, run.recipe.compute_bytes
        self.casts = run.recipe.weights_bytes_per_parameter != self.itemsize
        self.reduced_itemsize = run.recipe.gradients_bytes_per_parameter
        self.reshards = run.config.parallel.reshard
        root, groups = sharded_groups(run)
        self.groups: dict[int, ShardedGroup] = {ROOT: root} | {index: groups[index] for index in blocks}
        # in backward the next block is gathered while one runs, the last one while the loss is
        self.next_in_backward = dict(zip([*blocks[1:], ROOT], blocks, strict=True))
        self.gathered: dict[int, list[Storage]] = {}
        self.received: dict[int, Storage] = {}  # gathered, not yet copied to the weights
        self.previous: Storage | None = None  # of the last gather in forward, alive until the next is copied
        self.reducing: Storage | None = None  # the last buffer of gradients, alive until the next is needed
        self.reduced: list[Storage] = []  # this device's shards of the gradients
        self.in_groups = run.config.parallel.hsdp is not None
        self.added: list[Storage] = []  # shards that groups add up, kept until backward ends
        self.of_root: list[Storage] = []
        self.exist = False  # True: shards of the gradients of an earlier micro-batch exist and are added to

    def _gather(self, index: int) -> None:
        if index in self.gathered or index in self.received:
            return
        group = self.groups[index]
        casted = self.e.allocate(group.local * self.itemsize, BUFFERS) if self.casts else None
        self.received[index] = self.e.allocate(group.whole * self.itemsize, BUFFERS)
        del casted

    def _copy_out(self, index: int, forward: bool) -> None:
        if index not in self.received:
            return
        group = self.groups[index]
        self.gathered[index] = [self.e.allocate(count * self.itemsize, "weights") for count in group.padded]
        received = self.received.pop(index)
        if forward:
            self.previous = received
        del received

    # --- forward -----------------------------------------------------------------------------------------

    def before_forward(self, index: int) -> None:
        """The weights of a block, or of the root, are about to be read."""
        self._gather(index)
        self._copy_out(index, forward=True)

    def after_forward(self, index: int) -> None:
        """A block has run; after the root nothing stays of the last gather."""
        if index == ROOT:
            self.previous = None
        elif self.reshards:
            self.gathered.pop(index, None)

    # --- backward ----------------------------------------------------------------------------------------

    def before_backward(self, index: int) -> None:
        """The gradient of a block's output, or of the loss, is known: its weights, then the next block's gather."""
        self._gather(index)
        self._copy_out(index, forward=False)
        if index == self.next_in_backward[ROOT]:
            self.of_root, self.e.gradients = self.e.gradients, []
        if index in self.next_in_backward:
            self._gather(self.next_in_backward[index])

    def after_backward(self, index: int) -> None:
        """The gradient of a block's input is known: its weights are freed, its gradients reduced.

        The phase backward_end begins with the reduction of the first block: a hook on that block's input fires before.
        """
        if index == 0:
            self.e.ledger.phase("backward_end")
        gradients, self.e.gradients = self.e.gradients, []
        if index == ROOT:
            gradients, self.of_root = [*self.of_root, *gradients], []
        self.gathered.pop(index, None)
        self._reduce(self.groups[index], gradients)
        if index == ROOT:
            self.reducing = None
            self.added.clear()

    def _reduce(self, group: ShardedGroup, gradients: list[Storage]) -> None:
        self.reducing = None
        if not group.padded:  # a stage of a pipeline may hold nothing outside its blocks
            return
        self.reducing = self.e.allocate(group.whole * self.reduced_itemsize, BUFFERS)
        last = next(g for g in reversed(gradients) if g.size == group.last * self.itemsize)
        gradients.clear()
        shard = self.e.allocate(group.local * self.reduced_itemsize, "gradients")
        if not self.exist:
            self.reduced.append(shard)
        elif self.in_groups:
            self.added.append(shard)
        del last, shard
