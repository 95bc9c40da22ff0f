"""Out of memory, explained: predicted by component beside what was held, and the smallest change that fits."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from planner import presets
from planner.analysis.fitting import predicted_peak, smallest_change
from planner.config.run import CPU, RunConfig
from planner.errors import PlanError
from planner.memory.device import context_bytes
from planner.plan import Plan, estimate
from planner.report.text import COMPONENT_NAMES
from planner.units import format_bytes
from reference_trainer.device.device import DeviceMemory, read_memory

# a prediction that said "fits" and was wrong: the change is looked for this far below it, a judgement
AFTER_MISS_FRACTION = 0.9
UNKNOWN_CAPACITY_FRACTION = 0.5  # of the predicted peak, where no capacity is known: a judgement


def explain_shortage(
    config: RunConfig, device_total_bytes: int | None, when: str, error_text: str, held: DeviceMemory | None
) -> PlanError:
    """The error of a run that found no memory `when` ("in step 1"): it is returned, for the caller to raise.

    device_total_bytes: the device's whole memory, or what this process may have of it; None: the config's hardware's.
    error_text: PyTorch's message, of which the first line is kept. held: the counters at the failure, where known.
    """
    plan = estimate(config, replay=True)
    memory = plan.memory
    total = device_total_bytes if device_total_bytes is not None else memory.usable_bytes
    parts = ", ".join(
        f"{COMPONENT_NAMES[name]} {format_bytes(size)}"
        for name, size in sorted(memory.at_peak.items(), key=lambda item: -item[1])
        if size
    )
    peak = predicted_peak(plan.run, replay=True)
    whose = "reserved" if memory.peak_reserved_bytes.value is not None else "of tensors"
    lines = [
        error_text.strip().splitlines()[0] if error_text.strip() else "the allocation was refused",
        f"predicted: {format_bytes(peak)} {whose} at the most, in {memory.peak_phase}: {parts}",
        f"actual: {_held_line(held, total)}",
    ]
    room = capacity_for_tensors(config, total, held)
    if room is not None and peak <= room:
        lines.append("by the prediction it would have fitted: another process, fragments, or the prediction is wrong")
    return PlanError(
        f"{_device(config)} ran out of memory {when}",
        why="\n       ".join(lines),
        remedy=_remedy(plan, peak, room),
    )


def capacity_for_tensors(config: RunConfig, total: int | None, held: DeviceMemory | None) -> int | None:
    """Bytes that PyTorch's allocator can have: all, less the CUDA context and what other processes hold."""
    if total is None or config.hardware.gpu == CPU:
        return total
    others = 0 if held is None else held_by_others(config, held.device_used, held.peak_reserved)
    return max(0, total - context_bytes(presets.gpu(config.hardware.gpu)) - others)


def held_by_others(config: RunConfig, device_used: int | None, peak_reserved: int | None) -> int:
    """Bytes of the card that other processes hold: what is in use beyond this one's segments and CUDA context."""
    if config.hardware.gpu == CPU or device_used is None or peak_reserved is None:
        return 0
    return max(0, device_used - peak_reserved - context_bytes(presets.gpu(config.hardware.gpu)))


def _remedy(plan: Plan, peak: int, room: int | None) -> str:
    goal, against = room or 0, f"of the {format_bytes(room)} that tensors can have"
    if room is None:
        goal, against = (
            int(peak * UNKNOWN_CAPACITY_FRACTION),
            f"instead of {format_bytes(peak)}; the capacity is unknown",
        )
    elif peak <= room:
        goal, against = int(peak * AFTER_MISS_FRACTION), f"instead of {format_bytes(peak)}"
    found = smallest_change(plan.run, goal)
    if found is None:
        needed = plan.memory.weights_bytes + plan.memory.master_weights_bytes
        needed += plan.memory.gradients_bytes + plan.memory.optimizer_bytes
        return (
            "no micro-batch fits, not even one sequence with everything recomputed: weights, gradients and optimizer "
            f"states alone are {format_bytes(needed)}; take a larger device, a smaller model or another --recipe"
        )
    return (
        f"plan again with --config RUN_TOML {found.command_line} (the same global batch): "
        f"predicted {format_bytes(found.peak_bytes)} {against}; {found.price}"
    )


def _held_line(held: DeviceMemory | None, total: int | None) -> str:
    of = f"the device has {format_bytes(total)}" if total is not None else "the device's memory is unknown"
    if held is None:
        return f"unknown; {of}"
    if held.peak_allocated is None:
        return f"{format_bytes(held.peak_rss)} resident in this process at the most; {of}"
    return (
        f"{format_bytes(held.peak_allocated)} allocated, {format_bytes(held.peak_reserved)} reserved at the most, "
        f"{format_bytes(held.device_used)} of the whole device in use; {of}"
    )


def _device(config: RunConfig) -> str:
    return "this machine" if config.hardware.gpu == CPU else config.hardware.gpu


def is_shortage(error: RuntimeError) -> bool:
    """Whether PyTorch ran out of memory; on a CPU that has no class of its own."""
    return isinstance(error, torch.OutOfMemoryError) or "allocate memory" in str(error)


@contextmanager
def explained(config: RunConfig, device: torch.device, when: str) -> Iterator[None]:
    """Make `explain_shortage`'s PlanError of PyTorch's errors about memory; all others pass."""
    try:
        yield
    except RuntimeError as error:
        if not is_shortage(error):
            raise
        held = read_memory(device)  # before anything is let go
        total = torch.cuda.mem_get_info(device)[1] if device.type == "cuda" else None
        raise explain_shortage(config, total, when, str(error), held) from error
