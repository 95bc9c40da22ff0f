"""FSDP2: each rank keeps a part of the rows of every parameter; blocks are gathered when they run.

`fully_shard` on every block and then on the model, as planner/memory/fully_sharded.py simulates it: weights are
gathered in the compute type, gradients reduced in the type of the stored weights. The optimizer works on the rank's
rows alone, as plain tensors: an update of single elements is the same there, and no distributed tensor is dispatched.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor

from planner.config.run import RunConfig
from planner.counts.run import recipe_of
from reference_trainer.device.dtypes import DTYPES


class ShardRows(NamedTuple):
    """Which rows of a whole tensor a rank has: from `begin` on, of `total`."""

    begin: int
    total: int


def shard(model: nn.Module, config: RunConfig, device: torch.device) -> None:
    """Cut the parameters of `model` among the ranks, in place, and move this rank's rows to its device.

    model: with its blocks under `blocks`; the same weights on every rank. Names stay.
    """
    mesh, policy = _mesh(config, device), _policy(config)
    blocks = [block for _, block in model.get_submodule("blocks").named_children()]
    for block in blocks:
        if config.training.runtime == "compiled":
            # what gathers and frees stands outside of the compiled program, which therefore has no breaks
            block.forward = torch.compile(block.forward, dynamic=False)
        fully_shard(block, mesh=mesh, mp_policy=policy, reshard_after_forward=config.parallel.reshard)
    fully_shard(model, mesh=mesh, mp_policy=policy)


def _mesh(config: RunConfig, device: torch.device) -> DeviceMesh:
    """All ranks in a row, or in groups of `hsdp`, each a replica."""
    gpus, group = config.hardware.gpus, config.parallel.hsdp
    if group is None:
        return init_device_mesh(device.type, (gpus,), mesh_dim_names=("shards",))
    return init_device_mesh(device.type, (gpus // group, group), mesh_dim_names=("groups", "shards"))


def _policy(config: RunConfig) -> MixedPrecisionPolicy:
    """The type that weights are gathered in, and the one that gradients are reduced in, as the plan has it."""
    recipe = recipe_of(config)
    # positions stay as they are: FSDP2 would cast the rotary angles, which are an input of every block
    if recipe.runtime == "autocast" or recipe.weights_bytes_per_parameter == recipe.compute_bytes:
        return MixedPrecisionPolicy(cast_forward_inputs=False)
    narrow, wide = DTYPES[recipe.compute_dtype], torch.float32
    return MixedPrecisionPolicy(param_dtype=narrow, reduce_dtype=wide, cast_forward_inputs=False)


def is_sharded(model: nn.Module) -> bool:
    """Whether the ranks share the parameters of `model`."""
    return isinstance(model, FSDPModule)


def local_part(parameter: Tensor) -> Tensor:
    """This rank's rows of a parameter as a plain tensor in the same memory; the parameter itself if it is whole."""
    if not isinstance(parameter, DTensor):
        return parameter
    with torch.no_grad():
        return parameter.to_local().detach()


def local_gradient(parameter: Tensor) -> Tensor | None:
    """This rank's rows of a parameter's gradient."""
    grad = parameter.grad
    return grad.to_local() if isinstance(grad, DTensor) else grad


def rows_of(parameter: Tensor) -> ShardRows | None:
    """Which rows of a parameter this rank has; None if it is whole."""
    if not isinstance(parameter, DTensor):
        return None
    mesh, total = parameter.device_mesh["shards"], parameter.shape[0]
    each = -(-total // mesh.size())
    return ShardRows(min(total, mesh.get_local_rank() * each), total)


def shard_mesh(model: nn.Module) -> DeviceMesh | None:
    """The ranks among which the parameters of `model` are cut; None if each has all."""
    parameter = next(model.parameters())
    return parameter.device_mesh["shards"] if isinstance(parameter, DTensor) else None


def forget_gathered(model: nn.Module) -> None:
    """Free gathered weights: those of the rank's rows have just been replaced."""
    if isinstance(model, FSDPModule):
        model.reshard()
