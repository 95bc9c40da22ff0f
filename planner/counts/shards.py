"""What one device holds of every parameter tensor: all of it, or under FSDP2 the largest shard.

`torch.distributed.fsdp.fully_shard` cuts each tensor along its first dimension into as many pieces as there are GPUs,
and pads the last ones: every device stores ⌈rows / GPUs⌉ rows.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from planner.counts.run import Resolved
from planner.counts.tensors import ParameterTensor, named_tensors


@dataclass(frozen=True, slots=True)
class ShardedGroup:
    """Parameters that are gathered together: the elements of each, padded to a multiple of the shards, and the shards.

    last: elements of the last tensor without padding.
    """

    padded: tuple[int, ...]
    shards: int
    last: int

    @property
    def whole(self) -> int:
        """Elements of all tensors, padded."""
        return sum(self.padded)

    @property
    def local(self) -> int:
        """Elements of one shard of all tensors."""
        return self.whole // self.shards


def shards_of(run: Resolved) -> int:
    """Into how many shards weights, gradients and optimizer state are cut."""
    return run.config.hardware.gpus if run.config.parallel.fsdp else 1


def local_tensor(tensor: ParameterTensor, shards: int) -> ParameterTensor:
    """The shard of a tensor that one device stores."""
    return tensor if shards == 1 else replace(tensor, shape=(-(-tensor.shape[0] // shards), *tensor.shape[1:]))


def local_count(tensors: Iterable[ParameterTensor], shards: int) -> int:
    """Elements of all tensors that one device stores."""
    return sum(t.times * local_tensor(t, shards).count for t in tensors)


def sharded_groups(run: Resolved) -> tuple[ShardedGroup, tuple[ShardedGroup, ...]]:
    """The group of what no block holds, and the group of each block, as `fully_shard` on every block and the model."""
    shards = shards_of(run)
    outside: list[ParameterTensor] = []
    blocks: list[list[ParameterTensor]] = [[] for _ in range(run.shape.layers)]
    for tensor in named_tensors(run.config.model):
        kind, _, rest = tensor.name.partition(".")
        (blocks[int(rest.partition(".")[0])] if kind == "blocks" else outside).append(replace(tensor, times=1))
    return _group(outside, shards), tuple(_group(block, shards) for block in blocks)


def _group(tensors: list[ParameterTensor], shards: int) -> ShardedGroup:
    padded = tuple(shards * local_tensor(t, shards).count for t in tensors)
    return ShardedGroup(padded, shards, tensors[-1].count)
