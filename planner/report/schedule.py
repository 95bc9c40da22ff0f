"""Schedules as text for people: landmarks, values, the plot, the joints."""

from __future__ import annotations

from collections.abc import Sequence

from planner.analysis.schedules import Curve, last_step, marks_of
from planner.counts.schedule import Joint
from planner.finding import Finding
from planner.report.plot import legend, plot, with_cursor, with_second_scale
from planner.report.text import MARKS, table, wrap
from planner.units import format_count, format_fraction, format_number

WIDEST_PLOT = 100


def schedule_summary(
    curves: Sequence[Curve],
    steps: Sequence[int],
    joints: Sequence[tuple[str, Sequence[Joint]]],
    *,
    width: int,
    plain: bool,
) -> str:
    """Everything about one or several schedules. width: columns of the terminal. plain: no character beyond ASCII."""
    lines = [curve_title(curve) for curve in curves]
    if len(curves) > 1:
        lines = [f"{curve.label}: {line}" for curve, line in zip(curves, lines, strict=True)]
    sections = ["\n".join(lines), "\n".join(["Landmarks", *_values(curves, marks_of(curves))])]
    if steps:
        sections.append("\n".join(["Values", *_values(curves, steps)]))
    drawn = plot([c.rate for c in curves], last_step(curves), width=min(width, WIDEST_PLOT), plain=plain)
    if len(curves) > 1:
        drawn.append(f"  {legend([c.label for c in curves], plain=plain)}")
    sections.append("\n".join(["Rate over the steps", *drawn]))
    if joints:
        sections.append(_continuity(joints))
    sections += [text for text in (_findings(curves), _assumptions(curves)) if text]
    return "\n\n".join(sections)


def cursor_plot(curve: Curve, step: int, *, width: int, height: int) -> list[str]:
    """One curve over steps and, where known, tokens, with a vertical line at a step."""
    lines = with_cursor(plot([curve.rate], curve.steps, width=width, height=height), step, curve.steps)
    if curve.tokens_per_step is None:
        return lines
    ends = [format_count(k * curve.tokens_per_step) for k in (curve.steps // 2, curve.steps)]
    return with_second_scale(lines, "0", ends[0], f"{ends[1]} tokens")


def reading(curve: Curve, step: int) -> str:
    """What a curve says at a step."""
    words = [f"step {step:,} of {curve.steps:,}"]
    if curve.tokens_per_step is not None:
        words.append(f"{format_count(step * curve.tokens_per_step)} tokens")
    rate = curve.rate(step)
    words += [f"rate {format_number(rate)}", f"{format_fraction(rate / curve.schedule.peak_lr)} of the peak"]
    return " · ".join(words)


def landmark_lines(curve: Curve) -> list[str]:
    """Step, tokens and rate at the landmarks."""
    return [line[2:] for line in _values([curve], marks_of([curve]))]


def curve_title(curve: Curve) -> str:
    """A schedule in one line."""
    s = curve.schedule
    share = format_fraction(s.warmup_steps / curve.steps)
    words = [f"{s.kind}, peak {format_number(s.peak_lr)}"]
    if s.kind != "constant":
        words.append(f"floor {format_number(s.min_lr)}")
    words.append(f"{curve.steps:,} steps")
    if curve.tokens_per_step:
        words.append(f"{format_count(curve.steps * curve.tokens_per_step)} tokens")
    words.append(f"warm-up {s.warmup_steps:,} ({share})")
    if s.kind == "wsd":
        words.append(f"cooldown {s.cooldown_steps:,} ({format_fraction(s.cooldown_steps / curve.steps)})")
    if s.kind == "polynomial":
        words.append(f"power {format_number(s.decay_power)}")
    return ", ".join(words)


def _values(curves: Sequence[Curve], steps: Sequence[int]) -> list[str]:
    sizes = {curve.tokens_per_step for curve in curves}
    per_step = sizes.pop() if len(sizes) == 1 else None
    names = ["rate"] if len(curves) == 1 else [curve.label for curve in curves]
    rows = [["step", *(["tokens"] if per_step else []), *names]]
    for k in steps:
        tokens = [format_count(k * per_step)] if per_step else []
        rows.append([f"{k:,}", *tokens, *(format_number(curve.rate(k)) for curve in curves)])
    return table(rows, right=frozenset(range(len(rows[0]))))


def _continuity(joints: Sequence[tuple[str, Sequence[Joint]]]) -> str:
    rows = [("kind", "at", "before", "after", "equal")]
    for kind, each in joints:
        for j in each:
            rows.append(
                (kind, j.at, f"{j.left_piece}: {j.left}", f"{j.right_piece}: {j.right}", "yes" if j.equal else "NO")
            )
    legend_line = "  W warm-up, C cooldown, T steps, p peak, f floor; both sides by sympy, for every value of them"
    return "\n".join(["Continuity", *table(rows), legend_line])


def _findings(curves: Sequence[Curve]) -> str:
    """Each finding once, with the curves that it is about."""
    about: dict[Finding, list[str]] = {}
    for curve in curves:
        for f in curve.findings():
            about.setdefault(f, []).append(curve.label)
    lines = []
    for f, labels in about.items():
        where = f"{', '.join(labels)}: " if len(curves) > 1 else ""
        lines += [f"  {MARKS[f.level]} [{f.code}]", *wrap(where + f.message, indent=6)]
        lines += wrap(f"→ {f.remedy}", indent=6)
    return "\n".join(["Findings", *lines]) if lines else ""


def _assumptions(curves: Sequence[Curve]) -> str:
    found = {(a.key, a.value, a.source) for curve in curves for a in curve.assumptions}
    lines = []
    for key, value, source in sorted(found):
        lines += [f"  {key:<26}{value}", *wrap(source, indent=30)]
    return "\n".join(["Assumed (nobody typed these)", *lines]) if lines else ""
