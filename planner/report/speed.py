"""A plan's speed as text: throughput, step, utilisation, the whole run, and where the time of a step goes."""

from __future__ import annotations

from planner.plan import Plan, Time
from planner.report.text import BASES, Page, with_interval
from planner.step_time.throughput import Throughput
from planner.units import format_count_exact, format_duration, format_fraction, format_number, format_rate

COUNTED = ("steps", "evaluations", "checkpoints")  # parts of a run that are done so and so often


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
        *_run_parts(time, page),
    )


def _run_parts(time: Time, page: Page) -> list[str]:
    """Where the time of the run goes, with the interval of each part, and what those beside its steps rest on."""
    taken = [name for name, seconds in time.parts_high.items() if seconds > 0]
    if len(taken) < 2:
        return []
    rows: list[tuple[str, ...]] = [("of the run", "time", "from", "to", "bound by")]
    for name in taken:
        ends = (time.parts[name], time.parts_low[name], time.parts_high[name])
        often = f"{format_count_exact(time.times[name])} " if name in COUNTED else ""
        rows.append((f"{often}{name}", *map(format_duration, ends), time.bounds[name]))
    return ["", *page.table(rows, {1, 2, 3}), *(page.line(name, time.sources[name]) for name in taken[1:])]


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
