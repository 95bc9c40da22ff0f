"""What can be said of a plan whose bytes are not simulated exactly: an interval, and whether it fits, or why not known.

An upper bound that fits is a verdict, and so is a lower one that does not. Whatever lies between is unknown.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from planner.counts.run import Resolved
from planner.interval import UNKNOWN, Interval
from planner.memory.coverage import is_recomputed_in_graph, not_checked
from planner.memory.device import BY_STATE, Device, FitsUnknown, context_bytes, device_memory
from planner.memory.ledger import Peak
from planner.memory.replicas import nccl_bytes
from planner.presets import Gpu
from planner.rules import rules
from planner.units import format_bytes

PARTS_MISSING = "parts of the architecture are not simulated: see the findings"
OF_PASSES = ("forward_end", "backward_start", "backward_block", "backward_end")
Limits = tuple[int | None, int | None]  # bytes that the device can give for certain, and at most; None is unknown


def least_bytes(phases: Sequence[Peak], workspace: int | None, context: int | None, nccl: Interval[int]) -> int:
    """Bytes of a device without any activation: of an update, workspaces, context, and NCCL's fewest."""
    return _state_bytes(phases) + (workspace or 0) + (context or 0) + (nccl.low or 0)


def _state_bytes(phases: Sequence[Peak]) -> int:
    """Bytes of an update: weights, gradients and optimizer state, which no activation changes."""
    return max(p.peak_bytes for p in phases if p.phase.endswith("optimizer_step"))


def outside_update(phases: Sequence[Peak]) -> int:
    """Peak bytes of tensors while no update runs."""
    return max(p.peak_bytes for p in phases if not p.phase.endswith("optimizer_step"))


def of_upper_bound(device: Device, phases: Sequence[Peak], gradients: int, limits: Limits, uncounted: str) -> Device:
    """Options not covered: from the bytes that no runtime changes, to the upper bound, which has `gradients` more.

    gradients: all new gradients, which a compiled program returns together while the accumulated ones are alive.
    """
    usable, most_usable = limits
    found = _raised(device, _state_bytes(phases), gradients)
    if usable is None or most_usable is None:
        return found
    if least_bytes(phases, device.workspace, device.context, device.nccl) > most_usable:
        return replace(found, fits=False, fits_unknown=None)
    # a processor has no allocator: there the peak of the tensors is the bound
    bound = max(p.peak_bytes for p in phases) + gradients if found.allocated.value is None else found.allocated.value
    if device.fits and bound + (device.context or 0) + (device.nccl.high or 0) <= usable:
        return found
    why = f"only an upper bound exceeds the device; the memory of {uncounted} is not known"
    return replace(found, fits=None, fits_unknown=FitsUnknown("upper_bound_only", why))


def _raised(device: Device, low: int, more: int) -> Device:
    """Allocated and reserved bytes with `more`, and `low` as the lower end of what is allocated."""
    allocated, reserved = device.allocated, device.reserved
    if allocated.value is None or allocated.high is None:
        return device
    assert reserved.low is not None and reserved.value is not None and reserved.high is not None
    assert device.used is not None
    return replace(
        device,
        allocated=Interval(low, allocated.value + more, allocated.high + more),
        reserved=Interval(reserved.low, reserved.value + more, reserved.high + more),
        used=device.used + more,
    )


def of_layout(device: Device, phases: Sequence[Peak], limits: Limits, part: str) -> Device:
    """A layout that no run was compared with: the interval of published ones, which may leave the verdict open."""
    rule = rules("roofline")["memory"]["layouts"]
    unknown = FitsUnknown("layout_interval", f"{part} was compared with no run here")
    return _between(device, phases, limits, (rule["low"], rule["high"]), unknown)


def of_recomputed_blocks(device: Device, phases: Sequence[Peak], limits: Limits, layers: int) -> Device:
    """A compiled program that recomputes blocks: exact, but for the peak of such a block."""
    low, high = recomputed_width(layers)
    block = max(p.peak_bytes for p in phases if p.phase == "backward_block")
    other = max(p.peak_bytes for p in phases if p.phase != "backward_block")
    peak = max(block, other)
    of_peak = max(other, low * block) / peak, max(other, high * block) / peak
    unknown = FitsUnknown("recomputation_interval", "the peak of a recomputed block under torch.compile is not exact")
    return _between(device, phases, limits, of_peak, unknown)


def recomputed_width(layers: int) -> tuple[float, float]:
    """The least and the most of a recomputed block's peak in a compiled program, over what is predicted."""
    rule = rules("roofline")["memory"]["recomputed_in_graph"]
    return rule["low"], rule["few_high" if layers <= rule["few"] else "high"]


def _between(
    device: Device, phases: Sequence[Peak], limits: Limits, factors: tuple[float, float], unknown: FitsUnknown
) -> Device:
    """The device with allocated and reserved bytes between two factors of the prediction.

    unknown: the verdict if that leaves it open; what is needed is added to its reason.
    """
    usable, most_usable = limits
    context = device.context or 0
    allocated, reserved = device.allocated, device.reserved
    assert allocated.low is not None and allocated.value is not None and allocated.high is not None
    assert reserved.low is not None and reserved.value is not None and reserved.high is not None
    low = max(round(allocated.value * factors[0]), min(_state_bytes(phases), allocated.low))
    high = max(round(allocated.value * factors[1]), allocated.high)
    low = min(low, allocated.low)
    wide = replace(
        device,
        allocated=Interval(low, allocated.value, high),
        reserved=Interval(min(low, reserved.low), reserved.value, max(high, reserved.high)),
    )
    if usable is None or most_usable is None or device.fits is None:
        return wide
    least, most = low + context + (device.nccl.low or 0), high + context + (device.nccl.high or 0)
    if least <= most_usable and most > usable:
        needs = f"between {format_bytes(least)} and {format_bytes(most)}"
        return replace(wide, fits=None, fits_unknown=replace(unknown, why=f"{unknown.why}: it needs {needs}"))
    return wide


def highest_over_predicted(run: Resolved) -> float:
    """The upper end of a run's bytes over what is predicted: of a layout that no run was compared with, and of a
    compiled program that recomputes blocks; else 1."""
    if not_checked(run) is not None:
        return float(rules("roofline")["memory"]["layouts"]["high"])
    return recomputed_width(run.shape.layers)[1] if is_recomputed_in_graph(run) else 1.0


def most_known_to_fit(run: Resolved, gpu: Gpu, widest: float) -> float:
    """Bytes of a device, with its context and NCCL's usual buffers, up to which a run is known by rule to fit.

    widest: `highest_over_predicted` of the run; that much must fit.
    """
    assert gpu.usable_bytes is not None
    nccl, context = nccl_bytes(run), context_bytes(gpu)
    assert nccl.high is not None and nccl.value is not None
    return float((gpu.usable_bytes - context - nccl.high) / widest + context + nccl.value)


def is_known_to_fit(run: Resolved, gpu: Gpu, requested: int) -> bool:
    """Whether a run is known by rule to fit: with NCCL's most bytes, and the upper end of a layout's interval."""
    device = device_memory(run, gpu, requested, replay=False)
    assert device.allocated.value is not None
    allocated = device.allocated.value + (device.context or 0) + (device.nccl.value or 0)
    return bool(device.fits) and allocated <= most_known_to_fit(run, gpu, highest_over_predicted(run))


def of_passes(device: Device, phases: Sequence[Peak], passes: int, limits: Limits, part: str) -> Device:
    """A pipeline whose peak a rule gives, and exactly its passes: an interval from one to the other.

    passes: bytes at the highest moment of all passes of the stage; what other phases need is the rule's.
    """
    rule, (usable, most_usable) = rules("roofline")["memory"], limits
    ruled = max(p.peak_bytes for p in phases)
    exact = max(passes, *(p.peak_bytes for p in phases if p.phase not in OF_PASSES))
    allocated, reserved, workspace = device.allocated, device.reserved, device.workspace or 0
    assert allocated.low is not None and allocated.value is not None and allocated.high is not None
    assert reserved.low is not None and reserved.value is not None and reserved.high is not None
    high = max(allocated.high, round(exact * rule["rounding_high"]) + workspace)
    low = min(allocated.low, exact + workspace)
    wide = replace(
        device,
        allocated=Interval(low, allocated.value, high),
        reserved=Interval(min(low, reserved.low), reserved.value, max(high, reserved.high)),
    )
    if usable is None or most_usable is None or device.fits is None or exact == ruled:
        return wide
    context = device.context or 0
    least, most = low + context + (device.nccl.low or 0), high + context + (device.nccl.high or 0)
    if least <= most_usable and most > usable:
        needs = f"between {format_bytes(least)} and {format_bytes(most)}"
        return replace(wide, fits=None, fits_unknown=FitsUnknown("layout_interval", f"{part} needs {needs}"))
    return wide


def of_state(device: Device, phases: Sequence[Peak], usable: int | None) -> Device:
    """A model with parts that are not simulated: only what it needs at least is known. usable: at most, bytes."""
    least = least_bytes(phases, device.workspace, device.context, device.nccl)
    fits = False if usable is not None and least > usable else None
    unknown = None if fits is False else FitsUnknown("not_simulated", PARTS_MISSING)
    found = replace(device, allocated=UNKNOWN, reserved=UNKNOWN, used=None)
    return replace(found, fits=fits, fits_by=BY_STATE, fits_unknown=unknown)
