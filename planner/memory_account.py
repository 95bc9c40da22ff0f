"""The memory account of one device: state, activations by operator, peak of every phase, and whether it fits."""

from __future__ import annotations

from dataclasses import dataclass, replace

from planner import memory
from planner.config import RunConfig
from planner.counts import nominal_parameters, parameters_of
from planner.optimizer_account import OptimizerMemory, optimizer_memory, updated_bytes
from planner.phases import walk_run
from planner.presets import Gpu
from planner.rules import roofline_of, rules
from planner.shape import recipe_of
from planner.witnessed import counted


@dataclass(frozen=True, slots=True)
class Phase:
    """Peak of one phase, bytes, with the components alive at that moment (they sum to it)."""

    phase: str
    peak_bytes: int
    at_peak: dict[str, int]


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes per device. A component's own line is its own maximum; `at_peak` sums to `peak_requested_bytes`."""

    rule_14_bytes: int
    weights_bytes: int
    master_weights_bytes: int
    gradients_bytes: int
    optimizer_bytes: int
    activations_bytes: int
    logits_bytes: int
    temporary_bytes: int
    saved_bytes: int
    saved_by_operator: dict[str, int]
    peak_requested_bytes: int
    peak_allocated_bytes: int | None
    peak_allocated_bytes_low: int | None
    peak_allocated_bytes_high: int | None
    peak_reserved_bytes: int | None
    device_used_bytes: int | None
    usable_bytes: int | None
    fits: bool | None
    fits_by: str
    peak_phase: str
    at_peak: dict[str, int]
    phases: tuple[Phase, ...]
    checkpoint_bytes: int


def memory_of(config: RunConfig, gpu: Gpu | None) -> Memory:
    """The account of `config` on `gpu`; None stands for this machine's processor.

    Activation bytes are those of the reference trainer's model under the runtime that the config names; where that
    has no witness for the options (`witnessed.py`), the eager loop's, with an interval around them.
    """
    counts = parameters_of(config.model)
    recipe = recipe_of(config)
    # a device adds gradients in place; a CPU's are watched by a dispatch mode, under which none is
    walked = walk_run(config, in_place=gpu is not None)
    largest, saved = walked.largest, walked.saved_by
    phases = [Phase(p.phase, p.bytes, p.components) for p in walked.phases]
    peak = max(phases, key=lambda p: p.peak_bytes)
    optimizer = optimizer_memory(config)
    allocator = _beyond_tensors(peak.peak_bytes, config.hardware.gpu) if gpu else _NOTHING_BEYOND
    if gpu and counted(config) is not None:
        allocator = _bounded(allocator, phases, int(memory.gradients_bytes(counts.total, _gradient_bytes(config))))
    usable = gpu.usable_bytes if gpu else _host_memory(config)
    need = allocator.needed if gpu else peak.peak_bytes
    return Memory(
        rule_14_bytes=int(memory.rule_14_bytes(nominal_parameters(config.model))),
        weights_bytes=largest["weights"],
        master_weights_bytes=int(memory.master_weights_bytes(counts.total, recipe.master_weights_bytes_per_parameter)),
        gradients_bytes=int(memory.gradients_bytes(counts.total, recipe.gradients_bytes_per_parameter)),
        optimizer_bytes=optimizer.state_bytes,
        activations_bytes=largest["activations"],
        logits_bytes=largest["logits"],
        temporary_bytes=largest["temporary"],
        saved_bytes=sum(saved.values()),
        saved_by_operator=saved,
        peak_requested_bytes=peak.peak_bytes,
        peak_allocated_bytes=allocator.allocated,
        peak_allocated_bytes_low=allocator.allocated_low,
        peak_allocated_bytes_high=allocator.allocated_high,
        peak_reserved_bytes=allocator.reserved,
        device_used_bytes=allocator.device,
        usable_bytes=usable,
        fits=None if usable is None or need is None else need <= usable,
        fits_by="peak_allocated_bytes + CUDA context <= usable_bytes"
        if gpu
        else "peak_requested_bytes <= usable_bytes",
        peak_phase=peak.phase,
        at_peak=peak.at_peak,
        phases=tuple(phases),
        checkpoint_bytes=_checkpoint_bytes(config, optimizer),
    )


def _gradient_bytes(config: RunConfig) -> int:
    """Bytes of a gradient that stands beside the accumulated ones, where there are any."""
    return recipe_of(config).weights_bytes_per_parameter if config.training.accumulation > 1 else 0


def _bounded(allocator: _Beyond, phases: list[Phase], gradients: int) -> _Beyond:
    """Without a witness: between what does not depend on the runtime, and the eager figure with all gradients twice."""
    state = max(p.peak_bytes for p in phases if p.phase.endswith("optimizer_step"))
    assert allocator.allocated_high is not None
    return replace(allocator, allocated_low=state, allocated_high=allocator.allocated_high + gradients)


def _checkpoint_bytes(config: RunConfig, optimizer: OptimizerMemory) -> int:
    """A checkpoint's files: the weights that are updated, and the optimizer's state but what all tensors share."""
    counts = parameters_of(config.model)
    weights = int(memory.weights_bytes(counts.total, updated_bytes(config)))
    entries = counts.tensors + sum(times for _, times in optimizer.storages)
    return int(memory.checkpoint_bytes(weights, optimizer.state_bytes, entries))


@dataclass(frozen=True, slots=True)
class _Beyond:
    """What the device holds beyond the requested bytes of tensors."""

    allocated: int | None = None
    allocated_low: int | None = None
    allocated_high: int | None = None
    reserved: int | None = None
    device: int | None = None
    needed: int | None = None


_NOTHING_BEYOND = _Beyond()


def _beyond_tensors(requested: int, gpu: str) -> _Beyond:
    """Allocated, reserved and device bytes: workspaces and allocator slack, by rule, not yet by simulation."""
    rule = rules("roofline")["memory"]
    workspace = rule["workspace_handles"] * roofline_of(gpu)["workspace_bytes"]
    allocated = round(requested * rule["rounding"]) + workspace
    return _Beyond(
        allocated=allocated,
        allocated_low=requested,
        allocated_high=round(requested * rule["rounding_high"]) + workspace,
        reserved=round(allocated * rule["reserve"]),
        device=round(allocated * rule["reserve"]) + rule["context_bytes"],
        needed=allocated + rule["context_bytes"],
    )


def _host_memory(config: RunConfig) -> int | None:
    """Memory of this machine, from its profile; None without one."""
    found = (config.profile or {}).get("memory_bytes")
    return found if isinstance(found, int) else None
