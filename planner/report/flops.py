"""The FLOPs report as text for people: operators, conventions with their users, peaks."""

from __future__ import annotations

from planner.analysis.flops import ConventionFlops, FlopsReport
from planner.report.text import BASES, WIDTH, Page, sections_text
from planner.units import (
    format_count_exact,
    format_flops,
    format_flops_rate,
    format_fraction,
    format_number,
    format_rate,
)

LEGEND = (
    "N: parameters · q, v: heads times the width of a query, of a value head · L: blocks · T: sequence · "
    "K: keys a query's scores are counted against, summed over the blocks · V: vocabulary · h: width"
)


def flops_text(report: FlopsReport, width: int = WIDTH) -> str:
    """The whole report."""
    page = Page(width)
    parts = (_operators, _sums, _conventions, _sources, _peaks)
    return sections_text(page.heading(_title(report)), *(part(report, page) for part in parts))


def _title(report: FlopsReport) -> str:
    p = report.parameters
    active = f", {format_count_exact(p['active'])} active" if p["active"] != p["total"] else ""
    return f"{report.model}, {format_count_exact(p['total'])} parameters{active}, sequence {report.seq:,}"


def _operators(report: FlopsReport, page: Page) -> str:
    t = report.totals
    rows: list[tuple[str, ...]] = [("operator", "weights", "forward", "backward", "recomputed", "fraction")]
    for o in report.operators:
        again = format_flops(o.recomputed_per_token) if o.recomputed_per_token else ""
        weights = format_count_exact(o.weights) if o.weights else ""
        forward, backward = format_flops(o.forward_per_token), format_flops(o.backward_per_token)
        rows.append((o.operator, weights, forward, backward, again, format_fraction(o.share)))
    again_total = t.hardware_per_token - t.model_per_token
    rows.append(
        (
            "sum per token",
            "",
            format_flops(t.forward_per_token),
            format_flops(t.backward_per_token),
            format_flops(again_total) if again_total else "",
            format_fraction(1.0),
        )
    )
    lines = page.table(rows, {1, 2, 3, 4, 5})
    reasons = sorted({reason for o in report.operators for reason in o.recomputed_by})
    if reasons:
        lines += page.sentence(f"recomputed: {', '.join(reasons)}")
    return page.section("FLOPs by operator, per token, all blocks", *lines)


def _sums(report: FlopsReport, page: Page) -> str:
    t = report.totals
    rows: list[tuple[str, ...]] = [("", "model FLOPs (MFU)", "hardware FLOPs (HFU)")]
    rows.append(("per token", format_flops(t.model_per_token), format_flops(t.hardware_per_token)))
    step = f"per step of {t.tokens_per_step:,} tokens"
    rows.append((step, format_flops(t.model_per_step), format_flops(t.hardware_per_step)))
    if t.run_tokens is not None:
        run = f"run of {format_count_exact(t.run_tokens)} tokens"
        rows.append((run, format_flops(t.run_model), format_flops(t.run_hardware)))
    return page.section("FLOPs in all", *page.table(rows, {1, 2}))


def _conventions(report: FlopsReport, page: Page) -> str:
    rows: list[tuple[str, ...]] = [("convention", "FLOPs per token", "ratio", "run", "utilisation", "formula")]
    rows += [_convention(c) for c in report.conventions]
    speed = f"at {format_rate(report.tokens_per_second_per_gpu)} per GPU, {BASES[report.speed_basis]}"
    if report.tokens_per_second_per_gpu is None:
        speed = f"speed {BASES[report.speed_basis]}"
    notes = [*page.sentence(LEGEND), *page.sentence(f"utilisation: MFU or HFU {speed}")]
    return page.section("The same run in each convention", *page.table(rows, {1, 2, 3, 4}), *notes)


def _convention(c: ConventionFlops) -> tuple[str, ...]:
    run = "" if c.run_flops is None else format_flops(c.run_flops)
    kind = "MFU" if c.kind == "model" else "HFU"
    printed = f"{kind} {'unknown' if c.utilisation is None else format_fraction(c.utilisation)}"
    return (c.id, format_flops(c.flops_per_token), format_number(c.ratio), run, printed, c.formula)


def _sources(report: FlopsReport, page: Page) -> str:
    lines = []
    for c in report.conventions:
        lines.append(f"  {c.id}")
        for text in (c.used_by, c.note, f"source: {c.source}"):
            lines += page.sentence(text, 6)
    return page.section("Who uses each convention", *lines)


def _peaks(report: FlopsReport, page: Page) -> str:
    if not report.denominators:
        return ""
    rows: list[tuple[str, ...]] = [("peak", "rate", "MFU with it", "")]
    for d in report.denominators:
        mark = f"← used: products are {report.compute_dtype}" if d.used else d.meaning
        rows.append((d.name, format_flops_rate(d.flops_rate), format_fraction(d.mfu), mark))
    head = f"Peaks of {report.gpu}, and what else MFU is divided by"
    return page.section(head, *page.table(rows, {1, 2}))
