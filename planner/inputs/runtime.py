"""The runtime of a plan that names none: compiled on a GPU where its memory was compared with PyTorch."""

from __future__ import annotations

from planner import presets
from planner.config.run import CPU, Assumption, RunConfig
from planner.counts.run import Resolved, resolve
from planner.counts.untrained import untrained_parts
from planner.memory.coverage import not_checked, not_covered

KEY = "runtime"  # of the assumption
# cards of a compute capability below 7.0, for which Triton makes no kernels
WITHOUT_TRITON = ("p100-16gb", "gtx-titan-x")
WHY_COMPILED = "default on a GPU: what torch.compile makes of this model was compared with PyTorch"


def runtime_is_assumed(config: RunConfig) -> bool:
    """Whether nobody chose the config's runtime."""
    return any(a.key == KEY for a in config.provenance.assumptions)


def default_runtime(config: RunConfig) -> tuple[str, str]:
    """The runtime of a config for which nobody chose one, and why; "" where there is nothing to say.

    A processor runs what the recipe asks for, and so does a recipe that asks for a runtime of its own.
    """
    own = presets.recipe(config.training.recipe).runtime
    if config.hardware.gpu == CPU or own != "eager":
        return own, ""
    why = why_not_compiled(resolve(config))
    return (own, f"not compiled: {why}") if why else ("compiled", WHY_COMPILED)


def with_runtime(config: RunConfig, runtime: str, why: str = "") -> RunConfig:
    """The config with a runtime that nobody chose, and why in place of an older reason; "" leaves it unsaid."""
    kept = tuple(a for a in config.provenance.assumptions if a.key != KEY)
    said = (Assumption(key=KEY, value=runtime, source=why),) if why else ()
    provenance = config.provenance.model_copy(update={"assumptions": (*kept, *said)})
    training = config.training.model_copy(update={"runtime": runtime})
    return config.model_copy(update={"training": training, "provenance": provenance})


def why_not_compiled(run: Resolved) -> str:
    """Why a run on a GPU is not compiled if nobody says so; "" if it is."""
    config = run.config
    if config.hardware.gpu in WITHOUT_TRITON:
        return f"Triton has no kernels for {config.hardware.gpu}"
    if not config.hardware.software.startswith("pytorch"):
        return f"{config.hardware.software} has kernels of its own"
    # of a card that no preset describes the trainer asks the driver
    peaks = {} if run.gpu is None else run.gpu.peak_dense_flops
    if peaks and not peaks.get(run.recipe.compute_dtype):
        return f"{config.hardware.gpu} has no {run.recipe.compute_dtype}"
    if not run.recipe.trainable:
        return f"the reference trainer does not run {run.recipe.id}"
    parts = untrained_parts(config.model)
    if parts:
        return f"{parts[0]} was not compared with PyTorch"
    compiled = run.computed_with(training={"runtime": "compiled"})
    uncounted, unchecked = not_covered(compiled), not_checked(compiled)
    if uncounted:
        return f"the memory of {uncounted} is not known"
    return f"{unchecked} was compared with no run here" if unchecked else ""
