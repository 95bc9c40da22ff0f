"""Schedules as text for people: key steps, values, plot, continuity."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from planner.analysis.schedules import Curve, last_step, marks_of
from planner.counts.schedule import Breakpoint
from planner.finding import Finding
from planner.report.plot import legend, plot, with_cursor, with_second_scale
from planner.report.text import WIDTH, Page, sections_text
from planner.units import format_count, format_fraction, format_number

WIDEST_PLOT = 100


def schedule_summary(
    curves: Sequence[Curve],
    steps: Sequence[int],
    breakpoints: Sequence[tuple[str, Sequence[Breakpoint]]],
    *,
    width: int,
    plain: bool,
) -> str:
    """Everything about one or several schedules. width: columns of the terminal. plain: no character beyond ASCII."""
    page = Page(max(60, min(WIDTH, width)))
    several = len(curves) > 1
    titles = [f"{c.label}: {curve_title(c)}" if several else curve_title(c) for c in curves]
    drawn = plot([c.rate for c in curves], last_step(curves), width=min(width, WIDEST_PLOT), plain=plain)
    if several:
        drawn.append(f"  {legend([c.label for c in curves], plain=plain)}")
    assumed = {(a.key, a.value, a.source) for curve in curves for a in curve.assumptions}
    return sections_text(
        "\n".join(page.heading(title) for title in titles),
        page.section("Key steps", *_values(curves, marks_of(curves), page)),
        page.section("Values", *_values(curves, steps, page)) if steps else "",
        page.section("Learning rate over the steps", *drawn),
        _continuity(breakpoints, page) if breakpoints else "",
        page.section("Findings", *page.findings(_findings(curves))),
        page.defaults(sorted(assumed)),
    )


def cursor_plot(curve: Curve, step: int, *, width: int, height: int) -> list[str]:
    """One curve over steps and tokens (if known), with a vertical line at a step."""
    lines = with_cursor(plot([curve.rate], curve.steps, width=width, height=height), step, curve.steps)
    if curve.tokens_per_step is None:
        return lines
    ends = [format_count(k * curve.tokens_per_step) for k in (curve.steps // 2, curve.steps)]
    return with_second_scale(lines, "0", ends[0], f"{ends[1]} tokens")


def reading(curve: Curve, step: int) -> str:
    """The values of a curve at a step."""
    words = [f"step {step:,} of {curve.steps:,}"]
    if curve.tokens_per_step is not None:
        words.append(f"{format_count(step * curve.tokens_per_step)} tokens")
    rate = curve.rate(step)
    words += [f"rate {format_number(rate)}", f"{format_fraction(rate / curve.schedule.peak_lr)} of the peak"]
    return " · ".join(words)


def key_step_lines(curve: Curve) -> list[str]:
    """Step, tokens and learning rate at the key steps."""
    return _values([curve], marks_of([curve]), Page(indent=0))


def curve_title(curve: Curve) -> str:
    """A schedule in one line."""
    s = curve.schedule
    share = format_fraction(s.warmup_steps / curve.steps)
    words = [f"{s.kind}, peak {format_number(s.peak_lr)}"]
    if s.kind != "constant":
        words.append(f"min_lr {format_number(s.min_lr)}")
    words.append(f"{curve.steps:,} steps")
    if curve.tokens_per_step:
        words.append(f"{format_count(curve.steps * curve.tokens_per_step)} tokens")
    words.append(f"warm-up {s.warmup_steps:,} ({share})")
    if s.kind == "wsd":
        words.append(f"cooldown {s.cooldown_steps:,} ({format_fraction(s.cooldown_steps / curve.steps)})")
    if s.kind == "polynomial":
        words.append(f"power {format_number(s.decay_power)}")
    return ", ".join(words)


def _values(curves: Sequence[Curve], steps: Sequence[int], page: Page) -> list[str]:
    sizes = {curve.tokens_per_step for curve in curves}
    per_step = sizes.pop() if len(sizes) == 1 else None
    names = ["learning rate"] if len(curves) == 1 else [curve.label for curve in curves]
    rows = [["step", *(["tokens"] if per_step else []), *names]]
    for k in steps:
        tokens = [format_count(k * per_step)] if per_step else []
        rows.append([f"{k:,}", *tokens, *(format_number(curve.rate(k)) for curve in curves)])
    return page.table(rows, range(len(rows[0])))


def _continuity(breakpoints: Sequence[tuple[str, Sequence[Breakpoint]]], page: Page) -> str:
    rows = [("kind", "at", "before", "after", "equal")]
    for kind, each in breakpoints:
        for j in each:
            rows.append(
                (kind, j.at, f"{j.left_piece}: {j.left}", f"{j.right_piece}: {j.right}", "yes" if j.equal else "NO")
            )
    letters = "W warm-up, C cooldown, T steps, p peak, f min_lr; both sides symbolically, for all values"
    return page.section("Continuity", *page.table(rows), *page.sentence(letters))


def _findings(curves: Sequence[Curve]) -> list[Finding]:
    """Each finding once, with the names of its curves."""
    about: dict[Finding, list[str]] = {}
    for curve in curves:
        for f in curve.findings():
            about.setdefault(f, []).append(curve.label)
    if len(curves) == 1:
        return list(about)
    return [replace(f, message=f"{', '.join(labels)}: {f.message}") for f, labels in about.items()]
