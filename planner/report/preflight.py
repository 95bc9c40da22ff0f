"""A preflight as text for people: the table of checks, and under it why, for those that are not ok."""

from __future__ import annotations

from planner.report.text import table, wrap
from planner.runs.preflight import Preflight
from planner.units import format_count, format_duration, format_number

MARKS = {"ok": "✓ ok", "warning": "! warning", "failed": "✗ FAILED", "skipped": "· skipped"}


def preflight_text(report: Preflight) -> str:
    """The whole report."""
    return "\n\n".join(part for part in [_title(report), _samples(report), _rates(report), _checks(report)] if part)


def _title(report: Preflight) -> str:
    r = report
    return (
        f"Preflight of {r.model}, {format_count(r.parameters)} parameters, on {r.device_name} ({r.device}), "
        f"torch {r.torch}"
    )


def _samples(report: Preflight) -> str:
    if not report.samples:
        return ""
    lines = ["Samples (the target is the input, one token on)"]
    for s in report.samples:
        lines += [f"  {s.index}  input   {s.input}", f"     target  {s.target}"]
    return "\n".join(lines)


def _rates(report: Preflight) -> str:
    rows = [("step", "learning rate")] + [(f"{step:,}", format_number(rate)) for step, rate in report.rates]
    return "\n".join(["Rates", *table(rows, right=frozenset({0, 1}))])


def _checks(report: Preflight) -> str:
    rows = [("check", "verdict", "measured", "expected")]
    rows += [(c.name, MARKS[c.verdict], c.measured, c.expected) for c in report.checks]
    lines = ["Checks", *table(rows)]
    alike: dict[tuple[str, str, str], list[str]] = {}
    for c in report.checks:
        if c.verdict != "ok":
            alike.setdefault((c.verdict, c.why, c.remedy), []).append(c.name)
    for (verdict, why, remedy), names in alike.items():
        lines += ["", *wrap(f"{MARKS[verdict]}: {', '.join(names)}", indent=2)]
        lines += wrap(why, indent=6) if why else []
        lines += wrap(f"→ {remedy}", indent=6) if remedy else []
    counts = ", ".join(f"{report.count(v)} {v}" for v in ("ok", "warning", "failed", "skipped") if report.count(v))
    return "\n".join([*lines, "", f"  {counts}, in {format_duration(report.seconds)}"])
