"""Adapts a config to this machine: hardware, profile, and the recipe and the runtime if nobody chose them."""

from __future__ import annotations

import torch

from planner import presets
from planner.config.run import CPU, Assumption, RunConfig
from planner.errors import PlanError
from planner.inputs.profile_cache import cached_profile, profile_path, save_profile, without_profile
from planner.inputs.profile_file import NOISY
from planner.inputs.runtime import default_runtime, runtime_is_assumed, with_runtime
from planner.log import Log
from reference_trainer.device.device import device_name, has_bf16
from reference_trainer.measure.calibrate import is_current, quiet_profile
from reference_trainer.step.precision import can_compile

CALIBRATION_SECONDS = 15.0
CALIBRATION_TRIES = 2
BUSY = f"the machine was busy while its kernels were timed (noise above {NOISY:.0%}): speed is unknown"
WITHOUT_COMPILER = "not compiled: torch.compile needs Triton, which is not installed or has no kernels for this GPU"
TRIED: set[str] = set()  # devices that were busy when this process measured them: it does not try again

JsonProfile = dict[str, object]


def adapt_to_device(config: RunConfig, device: torch.device, log: Log, profile: JsonProfile | None = None) -> RunConfig:
    """The config with this machine's hardware and profile; fp32 if nobody chose a recipe and bf16 is emulated here.

    Nor is a runtime kept that nobody chose and that this device does not run.
    profile: kernel times that the user named, for the device of this run. Raises PlanError for those of another.
    """
    if profile is not None:
        _refuse_other_device(profile, device)
    config = _with_runnable_recipe(config, device, log)
    config = with_runnable_runtime(config, device)
    if any(a.source == WITHOUT_COMPILER for a in config.provenance.assumptions):
        log(f"{WITHOUT_COMPILER}: training in the eager runtime")
    return _on_cpu(config, profile, log) if device.type == "cpu" else _on_gpu(config, device, profile, log)


def _with_runnable_recipe(config: RunConfig, device: torch.device, log: Log) -> RunConfig:
    """fp32 in place of bf16 that nobody chose and that is emulated here."""
    assumed = {a.key for a in config.provenance.assumptions}
    # decided by the hardware alone: a profile, quiet or not, chooses no type
    if "recipe" not in assumed or config.training.recipe != "mixed-bf16" or has_bf16(device):
        return config
    why = "this processor has no bf16 instructions" if device.type == "cpu" else "this GPU has no bf16"
    log(f"{why}: training in fp32")
    return _with_recipe(config, "fp32", why)


def with_runnable_runtime(config: RunConfig, device: torch.device) -> RunConfig:
    """The config with a runtime that this device runs, if nobody chose one; a processor runs the recipe's own."""
    if not runtime_is_assumed(config):
        return config
    if device.type == "cpu":
        return with_runtime(config, presets.recipe(config.training.recipe).runtime)
    found = presets.gpu_by_driver_name(torch.cuda.get_device_name(device))
    hardware = config.hardware.model_copy(update={"gpu": presets.UNLISTED_GPU if found is None else found.id})
    runtime, why = default_runtime(config.model_copy(update={"hardware": hardware}))
    if runtime == "compiled" and not can_compile(device):
        runtime, why = "eager", WITHOUT_COMPILER
    return with_runtime(config, runtime, why)


def _on_cpu(config: RunConfig, named: JsonProfile | None, log: Log) -> RunConfig:
    hardware = config.hardware.model_copy(
        update={"gpu": CPU, "tflops": None, "mfu": None, "tokens_per_second": None, "usd_per_gpu_hour": None}
    )
    here = config.model_copy(update={"hardware": hardware})
    found = named or _current(config.profile) or _current(cached_profile(CPU, log))
    if found is None and CPU not in TRIED:
        log(f"this machine has no current profile: measuring its kernels first (saved in {profile_path(CPU)})")
        found = quiet_profile(CPU, CALIBRATION_SECONDS, CALIBRATION_TRIES, log)
        if found is None:
            TRIED.add(CPU)
        else:
            save_profile(found, profile_path(CPU))
    return without_profile(here, BUSY) if found is None else _with_profile(here, found)


def _on_gpu(config: RunConfig, device: torch.device, named: JsonProfile | None, log: Log) -> RunConfig:
    """The config with the preset of this GPU, and a profile of it if `gptplan calibrate --device cuda` made one.

    A GPU without a preset trains all the same: nothing is predicted of its memory's size and of its speed.
    """
    name = torch.cuda.get_device_name(device)
    found = presets.gpu_by_driver_name(name)
    hardware = config.hardware.model_copy(update={"gpu": presets.UNLISTED_GPU if found is None else found.id})
    if found is None:
        log(f"no preset describes this machine's GPU {name!r}: it trains, its speed and memory are unknown")
        config = _with_assumption(config, "gpu", presets.UNLISTED_GPU, f"no preset describes {name!r}")
    # without a profile the published specs are used
    profile = named or _current(config.profile, device) or _current(cached_profile(device.type, log), device)
    here = config.model_copy(update={"hardware": hardware, "profile": None})
    return here if profile is None else _with_profile(here, profile)


def _current(profile: JsonProfile | None, device: torch.device | None = None) -> JsonProfile | None:
    """The profile if it is one of this device and program."""
    kind = CPU if device is None else device.type
    return profile if profile is not None and profile.get("device") == kind and is_current(profile) else None


def _refuse_other_device(profile: JsonProfile, device: torch.device) -> None:
    here, there = device_name(device), profile.get("device_name")
    if profile.get("device") != device.type or there != here:
        raise PlanError(
            f"--profile is of {there or profile.get('device')}, and this run is on {here}",
            why="no device's times stand for another's",
            remedy="leave --profile out, or measure this machine: gptplan calibrate",
        )


def _with_profile(config: RunConfig, profile: JsonProfile) -> RunConfig:
    """The config with a profile, and no longer the reason why it had none."""
    assumptions = tuple(a for a in config.provenance.assumptions if a.key != "profile")
    provenance = config.provenance.model_copy(update={"assumptions": assumptions})
    return config.model_copy(update={"profile": profile, "provenance": provenance})


def _with_recipe(config: RunConfig, recipe: str, why: str) -> RunConfig:
    training = config.training.model_copy(update={"recipe": recipe})
    return _with_assumption(config.model_copy(update={"training": training}), "recipe", recipe, why)


def _with_assumption(config: RunConfig, key: str, value: str, why: str) -> RunConfig:
    """The config with this assumption in place of an older one of the same key."""
    kept = [a for a in config.provenance.assumptions if a.key != key]
    assumptions = (*kept, Assumption(key=key, value=value, source=why))
    return config.model_copy(update={"provenance": config.provenance.model_copy(update={"assumptions": assumptions})})
