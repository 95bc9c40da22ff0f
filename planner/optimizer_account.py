"""What the optimizer holds: state by parameter tensor, and what an update needs for a moment, by implementation.

Mirrors `reference_trainer/optimizers.py`, which is what torch.optim allocates; sizes in bytes.
"""

from __future__ import annotations

from dataclasses import dataclass

from planner.config import RunConfig
from planner.shape import recipe_of
from planner.tensors import ParameterTensor, parameter_tensors

FP32, BF16 = 4, 2
COUNTER = 4  # torch keeps the number of updates of every tensor as an fp32 scalar


@dataclass(frozen=True, slots=True)
class OptimizerMemory:
    """State in all, its storages one by one (bytes, times), and the most that an update needs beside it."""

    state_bytes: int
    storages: tuple[tuple[int, int], ...]
    step_bytes: int


def optimizer_memory(config: RunConfig) -> OptimizerMemory:
    """The account of the config's optimizer."""
    tensors = parameter_tensors(config.model)
    updated = updated_bytes(config)
    item = {None: updated, "fp32": FP32, "bf16": BF16}[config.optimizer.state_dtype]
    storages = tuple((size, t.times) for t in tensors for size in _adamw_state(t, item))
    return OptimizerMemory(
        state_bytes=sum(size * times for size, times in storages),
        storages=storages,
        step_bytes=_adamw_step(config, tensors, item),
    )


def updated_bytes(config: RunConfig) -> int:
    """Bytes of an element of the weights that the update changes: the master's where there is one."""
    recipe = recipe_of(config)
    return recipe.master_weights_bytes_per_parameter or recipe.weights_bytes_per_parameter


def _adamw_state(tensor: ParameterTensor, item: int) -> tuple[int, ...]:
    return (COUNTER, tensor.count * item, tensor.count * item)


def _adamw_step(config: RunConfig, tensors: tuple[ParameterTensor, ...], item: int) -> int:
    """fused: nothing; foreach: the root of the second moments, one decay group at a time; for-loop: two of a tensor."""
    way = config.optimizer.implementation
    if way == "fused":
        return 0
    if way == "for-loop":
        return 2 * item * max(t.count for t in tensors)
    groups = (sum(t.count * t.times for t in tensors if t.decays is decays) for decays in (True, False))
    return item * max(groups)
