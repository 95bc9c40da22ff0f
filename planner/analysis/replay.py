"""The result of `gptplan trace`: predicted and replayed peaks of each phase, and the allocator's peaks."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from planner.config.run import RunConfig
from planner.counts.run import resolve
from planner.memory.allocator import AllocationEvent, replay_allocations
from planner.memory.eager.context import simulation_context
from planner.memory.micro_batch import block_runs
from planner.memory.phases import simulate_run

WHOLE = 12  # blocks up to which the whole model is replayed by default: a second or two
FEW = (3, 5)  # units of alike blocks, where it is not; three is the least that has one between the ends


@dataclass(frozen=True, slots=True)
class Replayed:
    """Replayed peak of a phase, bytes, and the operator that reached it."""

    phase: str
    peak_bytes: float
    operator: str


@dataclass(frozen=True, slots=True)
class TracedPhase:
    """A phase's peak, bytes; `at_peak` are the predicted components, which sum to the prediction."""

    phase: str
    predicted_bytes: int
    replayed_bytes: int
    difference_bytes: int
    operator: str
    at_peak: dict[str, int]


@dataclass(frozen=True, slots=True)
class AllocatorView:
    """Peaks of PyTorch's caching allocator over the steps, bytes; each at its own moment."""

    setting: str
    requested_bytes: int
    allocated_bytes: int
    reserved_bytes: int
    segments: int


@dataclass(frozen=True, slots=True)
class TraceReport:
    """replayed_layers: blocks of each replay; if they are fewer than `layers` the peaks are extrapolated linearly.

    allocator_events: "replay", or "walk" for the planner's own allocations if not all blocks were replayed.
    """

    model: str
    layers: int
    recipe: str
    runtime: str
    micro_batch: int
    seq: int
    torch: str
    replayed_layers: tuple[int, ...]
    extrapolated: bool
    phases: tuple[TracedPhase, ...]
    predicted_peak_phase: str
    replayed_peak_phase: str
    largest_difference_bytes: int
    allocator_events: str
    allocator: tuple[AllocatorView, ...]


def few_layers(config: RunConfig, whole: bool | None) -> tuple[int, ...]:
    """The depths to replay: the model's own, or two smaller ones with the same pattern of blocks.

    whole: None lets the depth decide.
    """
    layers = config.model.layers
    _, unit, times = max(block_runs(simulation_context(resolve(config))), key=lambda run: (run[2], run[0]))
    if whole or (whole is None and layers <= WHOLE) or times <= FEW[-1]:
        return (layers,)
    return tuple(layers - unit * (times - few) for few in FEW)


def with_layers(config: RunConfig, layers: int) -> RunConfig:
    """The same run of a model with `layers` blocks; with the same number of dense blocks before the experts."""
    return config.model_copy(update={"model": config.model.model_copy(update={"layers": layers})})


def drawn_on(depths: tuple[int, ...], replays: list[list[Replayed]], layers: int) -> list[Replayed]:
    """Each phase's peak at `layers` blocks, extrapolated from two replays; a single replay is returned as it is."""
    if len(depths) == 1:
        return replays[0]
    (low, high), found = depths, []
    for a, b in zip(*replays, strict=True):
        slope = (b.peak_bytes - a.peak_bytes) / (high - low)
        found.append(Replayed(b.phase, b.peak_bytes + slope * (layers - high), b.operator))
    return found


def trace_report(
    config: RunConfig, torch: str, depths: tuple[int, ...], replays: list[list[Replayed]], events: list[AllocationEvent]
) -> TraceReport:
    """Predictions compared with replays at `depths` blocks; `events` of a full replay, else empty."""
    t, layers = config.training, config.model.layers
    seen = {p.phase: p for p in drawn_on(depths, replays, layers)}
    extrapolated = depths != (layers,)
    phases = []
    run = resolve(config)
    for p in simulate_run(run).phases:
        replayed = round(seen[p.phase].peak_bytes)
        operator = seen[p.phase].operator
        phases.append(TracedPhase(p.phase, p.peak_bytes, replayed, p.peak_bytes - replayed, operator, p.at_peak))
    if extrapolated:
        events = []
        simulate_run(run, events=events)
    return TraceReport(
        model=config.model.name,
        layers=layers,
        recipe=t.recipe,
        runtime=t.runtime,
        micro_batch=t.micro_batch,
        seq=t.seq,
        torch=torch,
        replayed_layers=depths,
        extrapolated=extrapolated,
        phases=tuple(phases),
        predicted_peak_phase=max(phases, key=lambda p: p.predicted_bytes).phase,
        replayed_peak_phase=max(phases, key=lambda p: p.replayed_bytes).phase,
        largest_difference_bytes=max((p.difference_bytes for p in phases), key=abs),
        allocator_events="walk" if extrapolated else "replay",
        allocator=tuple(_views(events)),
    )


def _views(events: list[AllocationEvent]) -> Iterable[AllocatorView]:
    for setting in ("default", "expandable"):
        peaks = replay_allocations(events, expandable=setting == "expandable")
        yield AllocatorView(setting, peaks.requested, peaks.allocated, peaks.reserved, peaks.segments)


def trace_document(report: TraceReport) -> dict[str, Any]:
    """The report as plain values, ready for JSON."""
    return asdict(report)
