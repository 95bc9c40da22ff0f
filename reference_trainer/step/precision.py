"""Recipes as PyTorch types, and which of them this trainer runs on which device."""

from __future__ import annotations

import torch

from planner import presets
from planner.config.run import RunConfig
from planner.counts.run import moments_dtype, recipe_of
from planner.errors import ConfigError, PlanError
from planner.presets import Recipe
from reference_trainer.model.document_masks import refuse_flex
from reference_trainer.model.gpt import COMPUTE_TYPES
from reference_trainer.optim.optimizers import optimizers_for

# tf32 is no type of a tensor: fp32 operands, of which the tensor cores read 10 bits of mantissa
MATMUL_TYPES = COMPUTE_TYPES | {"tf32": torch.float32}
UPDATE_8BIT = "bitsandbytes::optimizer_update_8bit_blockwise"


def compute_type(recipe: Recipe) -> torch.dtype:
    """Type of the operands of matrix products. Raises ConfigError for a recipe that this trainer does not run."""
    if not recipe.trainable:
        known = [id for id in presets.recipe_ids() if presets.recipe(id).trainable]
        raise ConfigError(
            f"the reference trainer does not run the recipe {recipe.id}",
            why=f"it has no {recipe.compute_dtype} matrix products; the recipe is there to be planned",
            remedy=f"plan with one of: {', '.join(known)}",
        )
    return MATMUL_TYPES[recipe.compute_dtype]


def weights_type(recipe: Recipe) -> torch.dtype:
    """Type of the model's parameters."""
    return torch.float32 if recipe.weights_bytes_per_parameter == torch.float32.itemsize else compute_type(recipe)


def refuse_unrunnable(config: RunConfig, device: torch.device) -> None:
    """Raises ConfigError for a recipe or optimizer that this trainer, or this device, does not run.

    PlanError where a package is missing.
    """
    recipe = recipe_of(config)
    compute_type(recipe)
    _refuse_runtime(config, device)
    refuse_flex(config, device)
    updated = torch.float32 if recipe.master_weights_bytes_per_parameter else weights_type(recipe)
    # made over a single number: what no optimizer has, and packages that are missing, are refused here
    optimizers_for({"blocks.0.weight": torch.zeros((1, 1), dtype=updated)}, config.optimizer, moments_dtype(config))
    if config.optimizer.name == "adamw8bit":
        _refuse_missing_kernels(device)
    if config.optimizer.name == "sgd" and config.optimizer.implementation == "fused":
        _refuse_lost_updates(updated, device)
    if recipe.compute_dtype == "tf32" and device.type == "cpu":
        raise ConfigError(
            f"a processor does not run the recipe {recipe.id}",
            why="TF32 is a mode of NVIDIA's tensor cores",
            remedy="take --recipe fp32, which computes more exactly",
        )


def _refuse_runtime(config: RunConfig, device: torch.device) -> None:
    if config.training.runtime == "fused":
        raise ConfigError(
            'the reference trainer does not run runtime = "fused"',
            why="it has no kernels of Megatron-Core or Transformer Engine; the runtime is there to be planned",
            remedy='take runtime = "eager", "autocast" or "compiled" under [training]',
        )
    if config.training.runtime == "compiled" and not _can_compile(device):
        missing = "a C++ compiler (g++ or clang++, or the one that CXX names)" if device.type == "cpu" else "Triton"
        raise PlanError(
            'this machine does not run runtime = "compiled"',
            why=f"torch.compile needs {missing}, and there is none",
            remedy='install it, or take runtime = "eager" under [training]',
        )


def _can_compile(device: torch.device) -> bool:
    # a quarter of a second to import, and wanted for this runtime only
    from torch._inductor.cpp_builder import get_cpp_compiler
    from torch._inductor.exc import InvalidCxxCompiler
    from torch.utils._triton import has_triton

    if device.type != "cpu":
        return bool(has_triton())
    try:
        get_cpp_compiler()
    except InvalidCxxCompiler:
        return False
    return True


def _refuse_missing_kernels(device: torch.device) -> None:
    """bitsandbytes before 0.50 has no 8-bit update for a processor, and says so at the first step only."""
    try:
        found = torch._C._dispatch_has_kernel_for_dispatch_key(UPDATE_8BIT, device.type.upper())
    except RuntimeError:  # no such operator at all
        found = False
    if not found:
        raise PlanError(
            f"the bitsandbytes that is installed has no 8-bit update for {device.type}",
            why=f"it registers no kernel of {UPDATE_8BIT} for it",
            remedy='pip install --upgrade "bitsandbytes>=0.50", or take --optimizer adamw',
        )


def _refuse_lost_updates(updated: torch.dtype, device: torch.device) -> None:
    if device.type == "cpu" and updated != torch.float32:
        raise ConfigError(
            f"fused SGD on a processor leaves {str(updated).removeprefix('torch.')} weights as they are",
            why="PyTorch to 2.13 computes the update and does not store it (github.com/pytorch/pytorch/issues/191763)",
            remedy="take --optimizer-implementation foreach",
        )
