"""Kernel classes of a trace beside the parts of a planned step, the worst first.

A plan's parts and a trace's kernels are cut differently: the head is a matrix product in a trace and a part of its own
in a plan. They are compared in groups that both can tell.
"""

from __future__ import annotations

from dataclasses import dataclass

from planner.plan import Plan
from planner.runs.logs.trace import OTHER, TraceSums

# group: parts of a plan, classes of kernels; a part or class of no group belongs to the last
GROUPS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "matrix products, head and loss": (
        ("matrix products", "head and loss", "loss", "head"), ("matrix products", "loss"),
    ),
    "attention": (("attention",), ("attention",)),
    "optimizer": (("optimizer", "clipping"), ("optimizer",)),
    "communication": (
        ("all-reduce", "sharding", "tensor parallel", "context parallel", "expert parallel", "stage transfers"),
        ("communication",),
    ),
    "copies": (("offloading",), ("copies",)),
    "idle": (("launch overhead", "overhead", "pipeline bubble", "stragglers"), ()),
    "element-wise": (
        ("element-wise", "norms", "activations", "casts", "residual and copies", "embedding"), (OTHER,),
    ),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class TraceRow:
    """A group: seconds of a step, or shares of it where the trace marks no steps; its kernels and longest names."""

    name: str
    predicted: float | None
    measured: float
    ratio: float | None
    kernels: int
    longest: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class TraceComparison:
    """Rows, the worst first: by what they add to or take from the step. steps: marked in the trace; 0: shares."""

    steps: int
    step_seconds: float | None
    predicted_step_seconds: float | None
    rows: tuple[TraceRow, ...]


def compare_trace(plan: Plan, trace: TraceSums) -> TraceComparison:
    """The groups of a plan and a trace. Predicted is unknown where the plan has no parts, as of a given speed."""
    parts, planned = plan.throughput.parts, plan.throughput.step_seconds.value
    steps, busy = trace.steps or 1, sum(trace.seconds.values())
    there = {kind: seconds / steps for kind, seconds in trace.seconds.items()}
    idle = max(0.0, (trace.step_seconds or 0.0) - busy / steps)
    whole = 1.0 if trace.steps else busy or 1.0
    total = 1.0 if trace.steps else sum(s for part, s in parts.items() if _group_of(part) != "idle") or 1.0
    rows = []
    for name, (_, theirs) in GROUPS.items():
        if name == "idle" and not trace.steps:
            continue  # without steps nobody knows how long the GPU waited
        measured = idle if name == "idle" else sum(there.get(kind, 0.0) for kind in theirs)
        predicted = sum(seconds for part, seconds in parts.items() if _group_of(part) == name) if parts else None
        if not measured and not predicted:
            continue
        left, right = None if predicted is None else predicted / total, measured / whole
        names = tuple(longest for kind in theirs for longest in trace.longest.get(kind, ()))[:3]
        ratio = right / left if left else None
        rows.append(TraceRow(name, left, right, ratio, sum(trace.kernels.get(kind, 0) for kind in theirs), names))
    rows.sort(key=lambda row: -abs(row.measured - (row.predicted or 0.0)))
    return TraceComparison(trace.steps, trace.step_seconds, planned, tuple(rows))


def _group_of(part: str) -> str:
    return next((name for name, (parts, _) in GROUPS.items() if part in parts), "element-wise")
