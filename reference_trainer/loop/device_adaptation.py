"""Adapts a config to this machine: hardware, profile, and the recipe if nobody chose one."""

from __future__ import annotations

import torch

from planner import presets
from planner.config.run import CPU, Assumption, RunConfig
from planner.errors import PlanError
from planner.inputs.profile_cache import cached_profile, profile_path, save_profile
from planner.log import Log
from planner.step_time.kernels import bf16_is_faster
from reference_trainer.measure.calibrate import NOISY, is_current, is_noisy, measure_profile

CALIBRATION_SECONDS = 15.0
NOT_KEPT: dict[str, dict[str, object]] = {}  # profiles from a busy machine, which serve this process alone


def adapt_to_device(config: RunConfig, device: torch.device, log: Log) -> RunConfig:
    """The config with this machine's hardware and profile, and another recipe if nobody chose one and it is better."""
    if device.type != "cpu":
        return _on_gpu(config, device, log)
    profile = NOT_KEPT.get(CPU) or cached_profile(CPU, log)
    if profile is None or not is_current(profile):
        log(f"this machine has no current profile: measuring its kernels first (saved in {profile_path(CPU)})")
        profile = measure_profile(CPU, CALIBRATION_SECONDS, log)
        if is_noisy(profile):
            log(f"the machine was busy (noise above {NOISY:.0%}): this profile serves this run alone and is not kept")
            NOT_KEPT[CPU] = profile
        else:
            save_profile(profile, profile_path(CPU))
    hardware = config.hardware.model_copy(update={"gpu": CPU, "tflops": None, "mfu": None, "usd_per_gpu_hour": None})
    changed = config.model_copy(update={"hardware": hardware, "profile": profile})
    assumed = {a.key for a in config.provenance.assumptions}
    undecided = "recipe" in assumed and config.training.recipe == "mixed-bf16"
    # a noisy profile decides nothing: the run keeps the type that its config names
    if undecided and not is_noisy(profile) and not bf16_is_faster(profile):
        log("fp32 matmuls are faster than bf16 on this CPU: training in fp32")
        changed = _with_recipe(changed, "fp32", "fp32 matmuls are faster than bf16 in the profile")
    return changed


def _on_gpu(config: RunConfig, device: torch.device, log: Log) -> RunConfig:
    """The config with the preset of this GPU; fp32 if nobody chose a recipe and the GPU has no bf16."""
    found = presets.gpu_by_driver_name(torch.cuda.get_device_name(device))
    if found is None:
        raise PlanError(
            f"there is no preset for this machine's GPU, {torch.cuda.get_device_name(device)!r}",
            why="predictions would use the numbers of another GPU",
            remedy="run with --device cpu, or add presets/gpus/<id>.toml with its driver name and published specs",
        )
    hardware = config.hardware.model_copy(update={"gpu": found.id})
    profile = cached_profile(
        device.type, log
    )  # made by `gptplan calibrate --device cuda`; without it the published specs are used
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
