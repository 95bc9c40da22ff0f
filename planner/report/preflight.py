"""A preflight as text for people: the table of checks, and below it the reasons of those that are not ok."""

from __future__ import annotations

from planner.report.text import WIDTH, Page, sections_text
from planner.runs.preflight import Preflight
from planner.units import format_count, format_duration, format_number

CHECK_MARKS = {"ok": "✓ ok", "warning": "! warning", "failed": "✗ FAILED", "skipped": "· skipped"}


def preflight_text(report: Preflight, width: int = WIDTH) -> str:
    """The whole report."""
    page = Page(width)
    return sections_text(page.heading(_title(report)), *(part(report, page) for part in (_samples, _rates, _checks)))


def _title(report: Preflight) -> str:
    r = report
    return (
        f"Preflight of {r.model}, {format_count(r.parameters)} parameters, on {r.device_name} ({r.device}), "
        f"torch {r.torch}"
    )


def _samples(report: Preflight, page: Page) -> str:
    lines = []
    for s in report.samples:
        lines += [f"  {s.index}  input   {s.input}", f"     target  {s.target}"]
    return page.section("Samples (the target is the input shifted by one token)", *lines)


def _rates(report: Preflight, page: Page) -> str:
    rows = [("step", "learning rate")] + [(f"{step:,}", format_number(rate)) for step, rate in report.rates]
    return page.section("Learning rates", *page.table(rows, {0, 1}))


def _checks(report: Preflight, page: Page) -> str:
    rows = [("check", "verdict", "measured", "expected")]
    rows += [(c.name, CHECK_MARKS[c.verdict], c.measured, c.expected) for c in report.checks]
    lines = page.table(rows)
    alike: dict[tuple[str, str, str], list[str]] = {}
    for c in report.checks:
        if c.verdict != "ok":
            alike.setdefault((c.verdict, c.why, c.remedy), []).append(c.name)
    for (verdict, why, remedy), names in alike.items():
        lines += ["", *page.sentence(f"{CHECK_MARKS[verdict]}: {', '.join(names)}")]
        lines += page.sentence(why, 6)
        lines += page.sentence(f"→ {remedy}", 6) if remedy else []
    counts = ", ".join(f"{report.count(v)} {v}" for v in ("ok", "warning", "failed", "skipped") if report.count(v))
    return page.section("Checks", *lines, "", f"  {counts}, in {format_duration(report.seconds)}")
