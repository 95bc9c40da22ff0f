"""The trace report as text for people."""

from __future__ import annotations

from planner.analysis.replay import TraceReport
from planner.report.text import COMPONENT_NAMES, WIDTH, Page, sections_text
from planner.units import format_bytes, format_fraction


def trace_text(report: TraceReport, width: int = WIDTH) -> str:
    """The whole report."""
    page = Page(width)
    return sections_text(*(part(report, page) for part in (_title, _phases, _components, _allocator)))


def _title(report: TraceReport, page: Page) -> str:
    r = report
    head = f"{r.model}, {r.layers} blocks, micro-batch {r.micro_batch} x {r.seq:,}, {r.recipe}, {r.runtime}"
    how = "all blocks simulated"
    if r.extrapolated:
        low, high = r.replayed_layers
        how = f"simulated with {low} and {high} blocks, each phase extrapolated linearly to {r.layers}"
    lines = page.sentence(f"torch {r.torch}: two optimizer steps on fake tensors, as on a processor; {how}")
    if r.extrapolated:
        text = (
            "Where a peak moves from the last block to the first, this is inexact: --layers all simulates every block."
        )
        lines += page.sentence(text)
    return page.section(head, *lines)


def _phases(report: TraceReport, page: Page) -> str:
    rows: list[tuple[str, ...]] = [("phase", "predicted", "replayed", "difference", "", "at operator")]
    for p in report.phases:
        mark = " ← peak" if p.phase == report.predicted_peak_phase else ""
        sign = "-" if p.difference_bytes < 0 else ""
        share = format_fraction(abs(p.difference_bytes) / p.replayed_bytes) if p.difference_bytes else "exact"
        difference = f"{sign}{format_bytes(abs(p.difference_bytes))}" if p.difference_bytes else "0 B"
        sizes = (format_bytes(p.predicted_bytes), format_bytes(p.replayed_bytes))
        rows.append((p.phase + mark, *sizes, difference, share, p.operator))
    return page.section("Peak of each phase, requested bytes", *page.table(rows, {1, 2, 3, 4}))


def _components(report: TraceReport, page: Page) -> str:
    names = [name for name in COMPONENT_NAMES if any(p.at_peak[name] for p in report.phases)]
    rows: list[tuple[str, ...]] = [("phase", *(COMPONENT_NAMES[name] for name in names))]
    for p in report.phases:
        rows.append((p.phase, *(format_bytes(p.at_peak[name]) if p.at_peak[name] else "" for name in names)))
    right = range(1, len(names) + 1)
    return page.section("Predicted components at each peak (they sum to it)", *page.table(rows, right))


def _allocator(report: TraceReport, page: Page) -> str:
    rows: list[tuple[str, ...]] = [("setting", "requested", "allocated", "reserved", "to allocated", "segments")]
    for view in report.allocator:
        sizes = (view.requested_bytes, view.allocated_bytes, view.reserved_bytes)
        more = f"+{format_fraction(view.reserved_bytes / view.allocated_bytes - 1)}"
        rows.append((view.setting, *(format_bytes(size) for size in sizes), more, f"{view.segments:,}"))
    whose = "replayed" if report.allocator_events == "replay" else "predicted"
    head = f"The {whose} allocations through a model of PyTorch's caching allocator (docs/why/allocator.md)"
    return page.section(head, *page.table(rows, {1, 2, 3, 4, 5}))
