"""Bytes of a GPU beyond those that tensors request: the allocator's blocks and segments, workspaces, CUDA context.

The allocations of the step are replayed, in order, through a simulation of PyTorch's caching allocator
(`allocator.py`). The same simulation, limited to the card's capacity, decides whether the plan fits: an allocator that
runs full releases unused segments and tries again. Without a replay, rules with an interval give the bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from planner.counts.run import Resolved
from planner.errors import OutOfMemoryError
from planner.interval import UNKNOWN, Interval
from planner.memory.allocator import AllocationEvent, AllocatorPeaks, replay_allocations
from planner.memory.optimizer_state import widened_bytes
from planner.memory.phases import simulate_run
from planner.memory.replicas import nccl_bytes
from planner.presets import Gpu
from planner.rules import roofline_of, rules
from planner.units import format_bytes

_MOST_REPLAYED_BLOCKS = 512  # above, rules give the bytes: every block would be replayed
BY_REPLAY = "simulated allocator with a capacity of usable_bytes - context_bytes - nccl_bytes"
BY_STATE = "weights, gradients and optimizer state + context_bytes <= usable_bytes; activations are unknown"
BY_RULE = "peak_allocated_bytes + context_bytes + nccl_bytes <= usable_bytes"


@dataclass(frozen=True, slots=True)
class FitsUnknown:
    """Why it is not known whether a plan fits: a code for programs, a sentence for people."""

    code: Literal[
        "no_usable_bytes",
        "no_cuda_total",
        "nccl_buffers",
        "upper_bound_only",
        "layout_interval",
        "recomputation_interval",
        "not_simulated",
    ]
    why: str


@dataclass(frozen=True, slots=True)
class Device:
    """Bytes of one device beyond tensors; `fits_by` says how `fits` was decided, `fits_unknown` why it was not.

    None is unknown.
    """

    allocated: Interval[int] = UNKNOWN
    reserved: Interval[int] = UNKNOWN
    used: int | None = None
    workspace: int | None = None
    context: int | None = None
    nccl: Interval[int] = UNKNOWN
    fits: bool | None = None
    fits_by: str = "peak_requested_bytes <= usable_bytes"
    fits_unknown: FitsUnknown | None = None

    @property
    def decided_by(self) -> str:
        """How `fits` was decided; where it is unknown, the reason, unless the state alone was looked at."""
        if self.fits_unknown is None or self.fits_by == BY_STATE:
            return self.fits_by
        return f"unknown: {self.fits_unknown.why}"


def device_memory(
    run: Resolved,
    gpu: Gpu,
    requested: int,
    replay: bool = True,
    buffers: Sequence[int] = (),
    before_update: int = 0,
) -> Device:
    """The device memory of `run` on `gpu`. requested: peak bytes of tensors. replay: False uses rules alone.

    buffers: bytes of each tensor that the program keeps for the whole run and the config does not mention.
    before_update: peak bytes of tensors outside of the update.
    """
    requested += sum(buffers)
    rule = rules("roofline")["memory"]
    workspace = workspaces_bytes(gpu)
    context, nccl = context_bytes(gpu), nccl_bytes(run)
    assert nccl.low is not None and nccl.value is not None
    at_least = requested + workspace + context + nccl.low
    too_large = gpu.most_usable_bytes is not None and at_least > gpu.most_usable_bytes
    if not replay or too_large or run.shape.layers > _MOST_REPLAYED_BLOCKS:
        device = _by_rule(requested, workspace, context, nccl, gpu)
        return _with_segments_of_the_update(device, run, before_update + sum(buffers))
    events = allocations(run, workspace // rule["workspace_handles"], rule["workspace_handles"], buffers)
    expandable = run.config.hardware.allocator == "expandable"
    peaks = replay_allocations(events, expandable=expandable)
    fits = _verdict(gpu, nccl, lambda usable: _passes(events, expandable, peaks, usable - context))
    return Device(
        allocated=Interval(requested + workspace, peaks.allocated, round(peaks.allocated * rule["replay_high"])),
        reserved=Interval(peaks.allocated, peaks.reserved, round(peaks.reserved * rule["replay_reserve_high"])),
        used=peaks.reserved + context + nccl.value,
        workspace=workspace,
        context=context,
        nccl=nccl,
        fits=fits,
        fits_by=BY_REPLAY,
        fits_unknown=_why_unknown(gpu, nccl) if fits is None else None,
    )


def workspaces_bytes(gpu: Gpu) -> int:
    """Bytes of the workspaces of a GPU's matrix products, those of all handles."""
    return int(rules("roofline")["memory"]["workspace_handles"] * roofline_of(gpu.id)["workspace_bytes"])


def allocations(run: Resolved, workspace: int, handles: int, buffers: Sequence[int] = ()) -> list[AllocationEvent]:
    """Every allocation and release of two steps; first the workspaces of matmuls and `buffers`."""
    events = [(-1 - i, size) for i, size in enumerate((*(workspace,) * handles, *buffers))]
    simulate_run(run, on_gpu=True, events=events)
    return events


def _verdict(gpu: Gpu, nccl: Interval[int], passes: Callable[[int], bool]) -> bool | None:
    """Whether a need passes with so many usable bytes; None where what the card and NCCL leave does not decide it."""
    if gpu.usable_bytes is None or gpu.most_usable_bytes is None:
        return None
    assert nccl.low is not None and nccl.high is not None
    least, most = gpu.usable_bytes - nccl.high, gpu.most_usable_bytes - nccl.low
    if passes(least):
        return True
    return None if least < most and passes(most) else False


def _why_unknown(gpu: Gpu, nccl: Interval[int]) -> FitsUnknown:
    if gpu.usable_bytes is None or gpu.most_usable_bytes is None:
        return FitsUnknown("no_usable_bytes", f"the usable memory of {gpu.id} is not known")
    if nccl.high:
        between = f"{format_bytes(nccl.low)} and {format_bytes(nccl.high)}"
        return FitsUnknown("nccl_buffers", f"NCCL's buffers take between {between}")
    between = f"{format_bytes(gpu.usable_bytes)} and {format_bytes(gpu.most_usable_bytes)}"
    return FitsUnknown("no_cuda_total", f"CUDA's own total of {gpu.id} is not known, it lies between {between}")


def _passes(events: list[tuple[int, int]], expandable: bool, peaks: AllocatorPeaks, capacity: int) -> bool:
    if peaks.reserved <= capacity:
        return True
    if peaks.allocated > capacity:
        return False
    try:
        replay_allocations(events, expandable=expandable, capacity=capacity)
    except OutOfMemoryError:
        return False
    return True


def _by_rule(requested: int, workspace: int, context: int, nccl: Interval[int], gpu: Gpu) -> Device:
    rule = rules("roofline")["memory"]
    allocated = round(requested * rule["rounding"]) + workspace
    most = round(requested * rule["rounding_high"]) + workspace
    reserved = round(allocated * rule["reserve"])
    fits = _verdict(gpu, nccl, lambda usable: allocated + context <= usable)
    return Device(
        allocated=Interval(requested + workspace, allocated, most),
        reserved=Interval(allocated, reserved, round(allocated * rule["reserve_high"])),
        used=reserved + context + (nccl.value or 0),
        workspace=workspace,
        context=context,
        nccl=nccl,
        fits=fits,
        fits_by=BY_RULE,
        fits_unknown=_why_unknown(gpu, nccl) if fits is None else None,
    )


def _with_segments_of_the_update(device: Device, run: Resolved, before: int) -> Device:
    """The device with what an update reserves by itself: one buffer for all widened gradients fits into no block that
    activations left, so that the allocator keeps both. before: peak bytes of tensors outside of the update."""
    buffer = widened_bytes(run)
    reserved = device.reserved
    if not buffer or None in (reserved.low, reserved.value, reserved.high, device.used):
        return device
    assert reserved.value is not None and reserved.high is not None and device.used is not None
    rule = rules("roofline")["memory"]
    others = before * rule["rounding"] + (device.workspace or 0)
    value = max(reserved.value, round(others * rule["reserve"]) + buffer)
    high = max(reserved.high, round(others * rule["reserve_high"]) + buffer)
    return replace(
        device,
        reserved=Interval(reserved.low, value, high),
        used=device.used + value - reserved.value,
    )


def context_bytes(gpu: Gpu) -> int:
    """Bytes of CUDA context and loaded kernels: a base, a part for each multiprocessor, more in some families."""
    rule = rules("roofline")["memory"]
    if gpu.multiprocessors is None:
        return int(rule["context_bytes"])
    extra = next((f["bytes"] for f in rule["context_family"] if gpu.id in f["gpus"]), 0)
    return int(rule["context_base_bytes"] + gpu.multiprocessors * rule["context_bytes_per_multiprocessor"] + extra)
