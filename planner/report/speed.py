"""A plan's speed as text: throughput, step, utilisation, the whole run, and where the time of a step goes."""

from __future__ import annotations

from planner.plan import Plan
from planner.report.text import BASES, Page, with_interval
from planner.step_time.throughput import Throughput
from planner.units import format_duration, format_fraction, format_number, format_rate


def speed_section(plan: Plan, page: Page) -> str:
    """The section of a plan on its speed: in all, and part by part."""
    t, time = plan.throughput, plan.time
    basis = BASES[t.basis]
    if t.step_seconds.width:
        basis += f", ±{100 * t.step_seconds.width:.0f} %"
    return page.section(
        f"Speed ({basis})",
        page.line("throughput", *with_interval(format_rate, t.tokens_per_second)),
        page.line("step", *with_interval(format_duration, t.step_seconds)),
        page.line("MFU", *with_interval(format_fraction, t.mfu)),
        *_other_mfus(t, page),
        page.line("HFU", format_fraction(t.hfu)),
        page.line("wall clock", *with_interval(format_duration, time.seconds)),
        page.line("GPU-hours", *with_interval(format_number, time.gpu_hours)),
        *_parts(t, page),
    )


def _parts(t: Throughput, page: Page) -> list[str]:
    """Where the time of a step goes, the longest part first, and what would make the prediction narrower."""
    seconds = t.step_seconds.value
    lines: list[str] = []
    if seconds and len(t.parts) > 1:
        rows = [("part of a step", "time", "share", "bound by" if t.bounds else "")]
        for name, part in sorted(t.parts.items(), key=lambda row: -row[1]):
            if part > 0:
                rows.append((name, format_duration(part), format_fraction(part / seconds), t.bounds.get(name, "")))
        lines = ["", *page.table(rows, {1, 2})]
    return [*lines, page.line("narrowed by", t.narrowed_by)] if t.narrowed_by else lines


def _other_mfus(t: Throughput, page: Page) -> list[str]:
    """A speed that somebody measured is compared with others' MFU, whatever they count."""
    if t.basis != "given" or t.mfu_causal is None:
        return []
    return [
        page.line("MFU, causal", format_fraction(t.mfu_causal), "half of attention counted, as the mask leaves it"),
        page.line("MFU by 6·N·D", format_fraction(t.mfu_6nd), "no attention counted"),
    ]
