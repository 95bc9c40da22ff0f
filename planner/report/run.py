"""A run as text for people: its stage, measured and predicted numbers, curves and events."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from planner.report.plot import plot
from planner.report.text import Page
from planner.runs.directory import last_error
from planner.runs.progress import Record, RunFigure, RunStage, Series
from planner.units import (
    LOSS_DIGITS,
    format_bytes,
    format_count,
    format_count_exact,
    format_duration,
    format_fraction,
    format_number,
    format_rate,
)

STAGES: dict[RunStage, str] = {
    "nothing": "? no run here",
    "starting": "… starting: simulates the plan, reads the data, builds the model",
    "running": "▶ running",
    "stopping": "■ stopping after its step, saving",
    "closing": "… training is over: measures memory, compares with the prediction",
    "finished": "✓ finished",
    "stopped": "■ stopped; it can be resumed",
    "failed": "✗ failed",
    "gone": "✗ the process died without an error message; resume from the last checkpoint",
}
NOTED = 84  # from so many columns on, notes stand beside the numbers
AXES = 2  # lines of a plot below its rows


def stage_text(stage: RunStage, code: int | None) -> str:
    """The stage of a run with its sign; the exit code if it is not 0."""
    return STAGES[stage] + (f" (exit code {code})" if code else "")


def figure_lines(figures: Sequence[RunFigure], width: int) -> list[str]:
    """Measured beside predicted; with notes if `width` has room for them."""
    noted = width >= NOTED
    rows = [("", "measured", "predicted", "ratio", "note" if noted else "")]
    for f in figures:
        ratio = "" if f.ratio is None or f.note == "of" else format_number(f.ratio)
        rows.append((f.label, _value(f, f.measured), _predicted(f, noted), ratio, _note(f) if noted else ""))
    return Page(width).table(rows, {1, 2, 3})


def _note(f: RunFigure) -> str:
    return "" if f.note == "of" else f.note


def _predicted(f: RunFigure, noted: bool) -> str:
    if f.predicted is None:
        return "·"  # this number is not predicted
    text = _value(f, f.predicted)
    if f.note == "of":
        return f"of {text}"
    if noted and f.interval.low != f.interval.high:
        text += f" ({format_number(f.interval.low)} … {format_number(f.interval.high)})"
    return text


def _value(f: RunFigure, value: float | int | None) -> str:
    if value is None:
        return "unknown" if f.unit == "byte" else "–"
    match f.unit:
        case "step":
            return format_count_exact(value)
        case "token":
            return format_count(value)
        case "token/s":
            return format_rate(value, "/s")
        case "s":
            return format_duration(value)
        case "byte":
            return format_bytes(value)
        case "share":
            return format_fraction(value)
        case "nat/token":
            return format_number(value, LOSS_DIGITS)
        case _:
            return format_number(value)


def curve_lines(title: str, series: Series, *, width: int, height: int) -> list[str]:
    """A curve over the steps under its title; a sentence while there are fewer than two points."""
    if len(series) < 2 or max(series.values) <= 0 or min(series.values) < 0:
        return [f"{title}: drawn from the second step on"]
    floor = (
        min(series.values) if min(series.values) < max(series.values) < 2 * min(series.values) else 0.0
    )  # else it is a line at the top
    return [f"{title} over steps", *plot([series.at()], series.steps[-1], width=width, height=height, floor=floor)]


def curves(record: Record, *, width: int, height: int) -> list[str]:
    """Loss and tokens/s; side by side if there is room."""
    names = (("loss, nats per token", record.loss), ("tokens/s", record.speed))
    if width < 2 * 44:
        return [line for title, series in names for line in curve_lines(title, series, width=width, height=height)]
    half = width // 2 - 1
    left, right = (curve_lines(title, series, width=half, height=height) for title, series in names)
    rows = max(len(left), len(right))
    left, right = left + [""] * (rows - len(left)), right + [""] * (rows - len(right))
    return [f"{a:<{half}}  {b}".rstrip() for a, b in zip(left, right, strict=True)]


def event_lines(events: Sequence[Mapping[str, Any]], most: int, width: int) -> list[str]:
    """The last events, the newest first: time of day (UTC), step, name, and numbers."""
    return [_event(e)[:width] for e in list(events)[: -most - 1 : -1]]


def _event(event: Mapping[str, Any]) -> str:
    time = str(event.get("time", ""))[11:19]
    facts = {k: v for k, v in event.items() if k not in ("time", "event", "step") and not isinstance(v, dict)}
    if event.get("event") in ("start", "resume"):
        facts = {k: facts[k] for k in ("device_name", "data") if k in facts}
    said = ", ".join(f"{name} {_fact(name, value)}" for name, value in facts.items())
    return f"  {time}  step {event.get('step', '?')}  {event.get('event', '?')}" + (f": {said}" if said else "")


def _fact(name: str, value: object) -> str:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return " ".join(str(value).split())
    if name.endswith("seconds"):
        return format_duration(value)
    return format_bytes(value) if name == "bytes" else format_number(value)


def failure_lines(log: Sequence[str], event: Mapping[str, Any] | None, width: int) -> list[str]:
    """The last message of a failed run: the error in its log, else the message of its last event."""
    said = last_error(list(log)) or ([str(event["message"])] if event and event.get("message") else [])
    return [part for line in said for part in Page(width).sentence(line)] or ["  it left no message"]
