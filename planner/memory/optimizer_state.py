"""The bytes of the optimizer's state by parameter tensor, and the order and groups in which tensors are updated.

Sizes are those that torch.optim and `reference_trainer/optim/optimizers.py` allocate. `optimizer_step.py` simulates
what an update needs in addition while it runs.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from planner.config.run import OptimizerConfig, RunConfig
from planner.counts.groups import Key, key_of, rate_and_decay
from planner.counts.ranks import end_norms, held_named_tensors, held_tensors
from planner.counts.run import Resolved, moments_dtype
from planner.counts.shards import optimizer_cut
from planner.counts.tensors import ParameterTensor, parameter_tensors
from planner.formulas.itemsize import BF16, FP32, ITEMSIZES
from planner.presets import Recipe

COUNTER = FP32  # torch keeps the number of updates of every tensor as an fp32 scalar
MUON_ITEMSIZE = BF16  # bytes of an element in Muon's iteration
# bitsandbytes 0.50, optim/optimizer.py: blocks of 256 elements with an fp32 maximum each; tensors below 4,096 elements
# keep fp32 moments; two tables of 256 fp32 numbers for all
BLOCK, SMALLEST_8BIT, TABLES = 256, 4096, 2 * 256 * FP32
OUTSIDE_BLOCKS = ("embedding.weight", "position.weight", "head.weight")

UpdatedTensor = ParameterTensor
UpdateGroup = tuple[str, bool, tuple[UpdatedTensor, ...]]  # optimizer, whether it decays, its tensors in order


@dataclass(frozen=True, slots=True)
class OptimizerMemory:
    """Bytes of the whole state, and its storages one by one (bytes, number of them)."""

    state_bytes: int
    storages: tuple[tuple[int, int], ...]


def optimizer_memory(run: Resolved) -> OptimizerMemory:
    """The state of the run's optimizer."""
    itemsize = moment_itemsize(run)
    cut = optimizer_cut(run)
    tensors = cut.parts(held_tensors(run))
    storages = [(size, t.times) for t in tensors for size in state_of_tensor(run.config.optimizer, itemsize, t)]
    storages += [(size, 1) for size in shared_state(run.config)]
    return OptimizerMemory(sum(size * times for size, times in storages), tuple(storages))


def updated_itemsize(run: Resolved) -> int:
    """Itemsize of the weights that the update changes: the master weights if the recipe has them."""
    return run.recipe.master_weights_bytes_per_parameter or run.recipe.weights_bytes_per_parameter


def moment_itemsize(run: Resolved) -> int:
    """Itemsize of the moments."""
    chosen = moments_dtype(run.config, run.recipe)
    return updated_itemsize(run) if chosen is None else ITEMSIZES[chosen]


def is_custom_adamw(run: Resolved) -> bool:
    """Whether AdamW's moments have another type than the weights: the reference trainer's own, not torch.optim's."""
    return run.config.optimizer.name == "adamw" and moment_itemsize(run) != updated_itemsize(run)


def has_narrow_gradients(recipe: Recipe) -> bool:
    """Whether gradients are narrower than master weights, so that each tensor is widened and updated by itself."""
    return 0 < recipe.gradients_bytes_per_parameter < recipe.master_weights_bytes_per_parameter


def widened_bytes(run: Resolved) -> int:
    """Bytes of the fp32 copy of all gradients that one update makes at once; 0 where each tensor is widened by itself.

    DeepSpeed's ZeRO-1 and 2 widen the partition of a GPU as one flat buffer (stage_1_and_2.py), Megatron's optimizers
    all gradients that a GPU updates (optimizer.py, distrib_optimizer.py). The reference trainer widens one at a time.
    """
    at_once = run.config.parallel.zero in (1, 2) or run.config.training.runtime == "fused"
    if not (at_once and has_narrow_gradients(run.recipe)):
        return 0
    return FP32 * optimizer_cut(run).count(held_tensors(run))


def state_of_tensor(optimizer: OptimizerConfig, itemsize: int, tensor: ParameterTensor) -> tuple[int, ...]:
    """Bytes of each storage of one tensor's state; `itemsize`: that of the moments."""
    size = tensor.count * itemsize
    kind = _optimizer_of(optimizer.name, tensor)
    if kind == "adamw":
        return (COUNTER, size, size)
    if kind == "adamw8bit":
        return _state_8bit(tensor.count)
    if kind == "adafactor":
        return (COUNTER, *_factors(tensor, itemsize))
    if kind == "sgd" and not optimizer.beta1:
        return ()  # torch.optim.SGD makes no buffer where momentum is 0
    return (size,)  # lion, sgd and muon keep one moment


def shared_state(config: RunConfig) -> tuple[int, ...]:
    """Bytes of the storages that all tensors share: the tables that decode 8-bit numbers."""
    large = any(t.count >= SMALLEST_8BIT for t in parameter_tensors(config.model))
    return (TABLES // 2, TABLES // 2) if config.optimizer.name == "adamw8bit" and large else ()


def _state_8bit(count: int) -> tuple[int, ...]:
    if count < SMALLEST_8BIT:
        return (FP32 * count, FP32 * count)
    maxima = FP32 * -(-count // BLOCK)
    return (count, count, maxima, maxima)


def _factors(tensor: ParameterTensor, itemsize: int) -> tuple[int, ...]:
    """Bytes of the row and column factors of the second moment; a vector's is not factored."""
    if len(tensor.shape) < 2:
        return (tensor.count * itemsize,)
    height, width = tensor.shape[-2:]
    return (tensor.count // width * itemsize, tensor.count // height * itemsize)


def _optimizer_of(name: str, tensor: ParameterTensor) -> str:
    """The optimizer of one tensor: Muon updates the blocks' matrices and leaves the rest to AdamW."""
    return "adamw" if name == "muon" and not tensor.role.has_muon else name


def update_groups(run: Resolved, every_block: bool = False) -> tuple[UpdateGroup, ...]:
    """Tensors by optimizer and decay, in the order of their update; one by one if gradients are narrow.

    every_block: each block by itself; else the blocks between the first and the last, which are alike, come once.
    """
    # a rule of optimizer.groups may take one block and leave its neighbour: then each tensor stands by itself
    config = run.config
    order = held_named_tensors(run) if config.optimizer.groups else _in_order(run, every_block)
    cut = optimizer_cut(run)
    name = config.optimizer.name
    tensors = [(t, _optimizer_of(name, t), key_of(config.optimizer, t.name, t.role)) for t in cut.parts(order)]

    def decays(key: Key) -> bool:
        return rate_and_decay(config.optimizer, key)[1] > 0

    if has_narrow_gradients(run.recipe):
        return tuple((kind, decays(key), (t,)) for t, kind, key in tensors)
    groups = [
        (kind, decays(key), tuple(t for t, its, own in tensors if its == kind and own == key))
        for kind in (("muon", "adamw") if name == "muon" else (name,))
        for key in sorted({key for _, _, key in tensors})
    ]
    return tuple(group for group in groups if group[2])


def _in_order(run: Resolved, every_block: bool) -> Iterator[ParameterTensor]:
    """The model's own order: embedding tables, the blocks, the last norm, the head."""
    tensors = held_tensors(run)
    norms = [t for t in tensors if t.name.startswith("norm.")]
    ends, layers = end_norms(run), run.shape.layers
    inner = [(t, t.times - ends) for t in norms]
    inner += [(t, t.times) for t in tensors if t.name not in OUTSIDE_BLOCKS and not t.name.startswith("norm.")]
    yield from (t for t in tensors if t.name in OUTSIDE_BLOCKS[:2])
    seen = 0
    for alike in [1] * layers if every_block or layers < 3 else [1, layers - 2, 1]:
        for t, inside in inner:
            # what only some blocks have is spread evenly: the order among alike tensors moves no peak
            times = inside * (seen + alike) // layers - inside * seen // layers
            if times:
                yield ParameterTensor(t.name, t.shape, t.role, times)
        seen += alike
    yield from (replace(t, times=ends) for t in norms if ends)
    yield from (t for t in tensors if t.name == OUTSIDE_BLOCKS[2])
