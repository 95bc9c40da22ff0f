"""Recipes as PyTorch dtypes, and checks that this trainer can run them on a device."""

from __future__ import annotations

import torch

from planner import presets
from planner.config.run import RunConfig
from planner.counts.roles import Role
from planner.counts.run import moments_dtype, recipe_of
from planner.counts.untrained import refuse_untrained
from planner.errors import ConfigError, PlanError
from planner.presets import Recipe
from reference_trainer.device.dtypes import DTYPES
from reference_trainer.model.attention_kernels import refuse_kernel
from reference_trainer.model.document_masks import refuse_flex
from reference_trainer.model.rotary import refuse_scaling
from reference_trainer.optim.optimizers import optimizers_for

# tf32 is not a dtype: operands are fp32, and tensor cores read 10 bits of the mantissa
UPDATE_8BIT = "bitsandbytes::optimizer_update_8bit_blockwise"


def compute_type(recipe: Recipe) -> torch.dtype:
    """dtype of matmul operands. Raises ConfigError for a recipe that this trainer cannot run."""
    if not recipe.trainable:
        known = [id for id in presets.recipe_ids() if presets.recipe(id).trainable]
        raise ConfigError(
            f"the reference trainer does not run the recipe {recipe.id}",
            why=f"it has no {recipe.compute_dtype} matmuls; the recipe is for planning only",
            remedy=f"plan with one of: {', '.join(known)}",
        )
    return DTYPES[recipe.compute_dtype]


def weights_type(recipe: Recipe) -> torch.dtype:
    """dtype of the model's parameters."""
    return torch.float32 if recipe.weights_bytes_per_parameter == torch.float32.itemsize else compute_type(recipe)


def uses_tf32(config: RunConfig) -> bool:
    """Whether fp32 matrix products are computed by tensor cores in TF32."""
    return recipe_of(config).compute_dtype == "tf32"


def refuse_unrunnable(config: RunConfig, device: torch.device) -> None:
    """Raises ConfigError for a model, recipe or optimizer that cannot run here, PlanError for a missing package."""
    refuse_untrained(config.model)
    recipe = recipe_of(config)
    compute_type(recipe)
    _refuse_runtime(config, device)
    refuse_flex(config, device)
    refuse_kernel(config, device)
    refuse_scaling(config.model.rope_scaling)
    updated = torch.float32 if recipe.master_weights_bytes_per_parameter else weights_type(recipe)
    # built for one number, only to raise for options that no optimizer has and for missing packages
    one = {"blocks.0.weight": torch.zeros((1, 1), dtype=updated)}
    optimizers_for(one, {"blocks.0.weight": Role.MATRIX}, config.optimizer, moments_dtype(config, recipe))
    if config.optimizer.name == "adamw8bit":
        _refuse_missing_kernels(device)
    if config.optimizer.name == "sgd" and config.optimizer.implementation == "fused":
        _refuse_lost_updates(updated, device)
    if uses_tf32(config) and device.type == "cpu":
        raise ConfigError(
            f"a CPU does not run the recipe {recipe.id}",
            why="TF32 is a mode of NVIDIA tensor cores",
            remedy="use --recipe fp32, which is more exact",
        )


def _refuse_runtime(config: RunConfig, device: torch.device) -> None:
    if config.training.runtime == "fused":
        raise ConfigError(
            'the reference trainer does not run runtime = "fused"',
            why="it has no kernels of Megatron-Core or Transformer Engine; this runtime is for planning only",
            remedy='use runtime = "eager", "autocast" or "compiled" under [training]',
        )
    if config.training.runtime == "compiled" and config.model.moe is not None:
        raise ConfigError(
            'the reference trainer does not run experts with runtime = "compiled"',
            why="the tokens of each expert change with every batch, and each change would compile the step again",
            remedy='use runtime = "eager" or "autocast" under [training]',
        )
    if config.training.runtime == "compiled" and not can_compile(device):
        missing = "a C++ compiler (g++ or clang++, or the one that CXX names)" if device.type == "cpu" else "Triton"
        raise PlanError(
            'this machine cannot run runtime = "compiled"',
            why=f"torch.compile needs {missing}, which is not installed",
            remedy='install it, or use runtime = "eager" under [training]',
        )


def can_compile(device: torch.device) -> bool:
    """Whether torch.compile has what it needs here: a C++ compiler for a processor, Triton for a GPU."""
    # imported here: it takes 0.25 s and only this runtime needs it
    from torch._inductor.cpp_builder import get_cpp_compiler
    from torch._inductor.exc import InvalidCxxCompiler
    from torch.utils._triton import has_triton

    if device.type != "cpu":
        return bool(has_triton())  # it asks for a compute capability of 7.0 too
    try:
        get_cpp_compiler()
    except InvalidCxxCompiler:
        return False
    return True


def _refuse_missing_kernels(device: torch.device) -> None:
    """Raises PlanError if bitsandbytes has no 8-bit update for the device (versions before 0.50)."""
    try:
        found = torch._C._dispatch_has_kernel_for_dispatch_key(UPDATE_8BIT, device.type.upper())
    except RuntimeError:  # no such operator at all
        found = False
    if not found:
        raise PlanError(
            f"the installed bitsandbytes has no 8-bit update for {device.type}",
            why=f"it registers no {UPDATE_8BIT} kernel for this device",
            remedy='pip install --upgrade "bitsandbytes>=0.50", or use --optimizer adamw',
        )


def _refuse_lost_updates(updated: torch.dtype, device: torch.device) -> None:
    if device.type == "cpu" and updated != torch.float32:
        raise ConfigError(
            f"fused SGD on a CPU does not change {str(updated).removeprefix('torch.')} weights",
            why="PyTorch up to 2.13 does not store the update (github.com/pytorch/pytorch/issues/191763)",
            remedy="use --optimizer-implementation foreach",
        )
