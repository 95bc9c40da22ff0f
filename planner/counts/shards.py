"""What one device stores of every parameter tensor: all of it, or its part under FSDP2 and ZeRO.

`torch.distributed.fsdp.fully_shard` cuts each tensor along its first dimension into as many pieces as there are GPUs,
and pads the last ones: every device stores ⌈rows / GPUs⌉ rows. ZeRO-1 and 2 cut flat buffers, whose padding is less
than a number for each GPU and tensor. A tensor of experts lies on the GPUs of its expert-parallel group already, so
that fewer GPUs share it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from planner.counts.ranks import held_named_tensors
from planner.counts.run import Resolved
from planner.counts.tensors import ParameterTensor

EXPERTS = "mlp.experts."


@dataclass(frozen=True, slots=True)
class Cut:
    """Among how many GPUs tensors are cut, by rows or flat, and among how many those of experts."""

    shards: int
    of_experts: int
    by_rows: bool = True

    def shards_of(self, tensor: ParameterTensor) -> int:
        """GPUs that share a tensor."""
        return self.of_experts if EXPERTS in tensor.name else self.shards

    def part(self, tensor: ParameterTensor) -> ParameterTensor:
        """The part of a tensor that one device stores."""
        shards = self.shards_of(tensor)
        if self.by_rows or shards == 1:
            return local_tensor(tensor, shards)
        return replace(tensor, shape=(-(-tensor.count // shards),))

    def parts(self, tensors: Iterable[ParameterTensor]) -> Iterable[ParameterTensor]:
        """The parts of all tensors that one device stores."""
        return tensors if self.shards == 1 else map(self.part, tensors)

    def count(self, tensors: Iterable[ParameterTensor]) -> int:
        """Elements of all tensors that one device stores."""
        return sum(t.times * t.count for t in self.parts(tensors))


@dataclass(frozen=True, slots=True)
class ShardedGroup:
    """Parameters that are gathered together: the elements of each, padded to a multiple of the shards.

    local: elements of one shard of all. last: elements of the last tensor without padding.
    """

    padded: tuple[int, ...]
    local: int
    last: int

    @property
    def whole(self) -> int:
        """Elements of all tensors, padded."""
        return sum(self.padded)


def sharing_gpus(run: Resolved) -> int:
    """GPUs that hold the same weights but for sharding: data-parallel and context-parallel ones."""
    return run.config.hardware.gpus // (run.config.parallel.tp * run.config.parallel.pp)


def _cut(run: Resolved, shards: int, by_rows: bool) -> Cut:
    return Cut(shards, max(1, shards // run.config.parallel.ep), by_rows)


def weights_cut(run: Resolved) -> Cut:
    """How the weights are cut that the step computes with."""
    p = run.config.parallel
    shards = (p.hsdp or sharing_gpus(run)) if p.shards_weights else 1
    return _cut(run, shards, True)


def gradients_cut(run: Resolved) -> Cut:
    """How the gradients of a step are cut once they are reduced."""
    return _cut(run, sharing_gpus(run), False) if run.config.parallel.zero == 2 else weights_cut(run)


def optimizer_cut(run: Resolved) -> Cut:
    """How master weights and the optimizer's state are cut."""
    return _cut(run, sharing_gpus(run), False) if run.config.parallel.zero in (1, 2) else weights_cut(run)


def shards_of(run: Resolved) -> int:
    """Into how many shards weights, gradients and optimizer state are cut."""
    return weights_cut(run).shards


def local_tensor(tensor: ParameterTensor, shards: int) -> ParameterTensor:
    """The shard of a tensor that one device stores: of its rows."""
    return tensor if shards == 1 else replace(tensor, shape=(-(-tensor.shape[0] // shards), *tensor.shape[1:]))


def local_count(tensors: Iterable[ParameterTensor], shards: int) -> int:
    """Elements of all tensors that one device stores."""
    return sum(t.times * local_tensor(t, shards).count for t in tensors)


def sharded_groups(run: Resolved) -> tuple[ShardedGroup, tuple[ShardedGroup, ...]]:
    """The group of what no block holds, and the group of each block, as `fully_shard` on every block and the model."""
    rank = run.rank and replace(run.rank, name="", in_flight=1)
    key = run.config.model, rank, run.config.parallel.ep, weights_cut(run)
    if key not in _GROUPS:
        if len(_GROUPS) >= _MOST_GROUPS:
            _GROUPS.clear()
        _GROUPS[key] = _groups_of(run)
    return _GROUPS[key]


_MOST_GROUPS = 64
# by all that they depend on: a search simulates the same groups with many micro-batches
_GROUPS: dict[object, tuple[ShardedGroup, tuple[ShardedGroup, ...]]] = {}


def _groups_of(run: Resolved) -> tuple[ShardedGroup, tuple[ShardedGroup, ...]]:
    cut = weights_cut(run)
    outside: list[ParameterTensor] = []
    blocks: list[list[ParameterTensor]] = [[] for _ in range(run.shape.layers)]
    for tensor in held_named_tensors(run):
        kind, _, rest = tensor.name.partition(".")
        (blocks[int(rest.partition(".")[0])] if kind == "blocks" else outside).append(tensor)
    return _group(outside, cut), tuple(_group(block, cut) for block in blocks)


def _group(tensors: list[ParameterTensor], cut: Cut) -> ShardedGroup:
    padded = tuple(cut.shards_of(t) * cut.part(t).count for t in tensors)
    return ShardedGroup(padded, sum(cut.part(t).count for t in tensors), tensors[-1].count if tensors else 0)
