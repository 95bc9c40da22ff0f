"""A config as this machine executes it: its hardware, its profile, and the recipe where nobody chose one."""

from __future__ import annotations

import torch

from planner import presets
from planner.config.run import CPU, Assumption, RunConfig
from planner.errors import PlanError
from planner.inputs.profile_cache import cached_profile, profile_path, save_profile
from planner.log import Log
from planner.step_time.kernels import bf16_is_faster
from reference_trainer.measure.calibrate import is_current, measure_profile

CALIBRATION_SECONDS = 15.0


def adapt_to_device(config: RunConfig, device: torch.device, log: Log) -> RunConfig:
    """The config as this machine executes it: hardware, profile, and the recipe where nobody chose one."""
    if device.type != "cpu":
        return _on_gpu(config, device, log)
    profile = cached_profile(CPU, log)
    if profile is None or not is_current(profile):
        log(f"no current profile of this machine: measuring its kernels first (kept in {profile_path(CPU)})")
        profile = measure_profile(CPU, CALIBRATION_SECONDS, log)
        save_profile(profile, profile_path(CPU))
    hardware = config.hardware.model_copy(update={"gpu": CPU, "tflops": None, "mfu": None, "usd_per_gpu_hour": None})
    changed = config.model_copy(update={"hardware": hardware, "profile": profile})
    assumed = {a.key for a in config.provenance.assumptions}
    if "recipe" in assumed and config.training.recipe == "mixed-bf16" and not bf16_is_faster(profile):
        log("this processor multiplies faster in fp32 than in bf16: training in fp32")
        changed = _with_recipe(changed, "fp32", "the profile finds fp32 products faster than bf16 ones")
    return changed


def _on_gpu(config: RunConfig, device: torch.device, log: Log) -> RunConfig:
    """On a GPU the preset of that very card; fp32 where nobody chose a recipe and it has no bf16."""
    found = presets.gpu_by_driver_name(torch.cuda.get_device_name(device))
    if found is None:
        raise PlanError(
            f"this machine's GPU {torch.cuda.get_device_name(device)!r} is in no preset",
            why="its predictions would rest on another card's numbers",
            remedy="run with --device cpu, or add presets/gpus/<id>.toml with its driver name and data sheet",
        )
    hardware = config.hardware.model_copy(update={"gpu": found.id})
    profile = cached_profile(device.type, log)  # made by `gptplan calibrate --device cuda`; else the data sheet serves
    current = profile if profile is not None and is_current(profile) else None
    changed = config.model_copy(update={"hardware": hardware, "profile": current})
    assumed = {a.key for a in config.provenance.assumptions}
    if "recipe" in assumed and not torch.cuda.is_bf16_supported(including_emulation=False):
        return _with_recipe(changed, "fp32", "this GPU has no bf16")
    return changed


def _with_recipe(config: RunConfig, recipe: str, why: str) -> RunConfig:
    assumptions = [a for a in config.provenance.assumptions if a.key != "recipe"]
    assumptions.append(Assumption(key="recipe", value=recipe, source=why))
    return config.model_copy(
        update={
            "training": config.training.model_copy(update={"recipe": recipe}),
            "provenance": config.provenance.model_copy(update={"assumptions": tuple(assumptions)}),
        }
    )
