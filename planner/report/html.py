"""Results as HTML tables, which a notebook shows; every text is escaped."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from planner.analysis.headline import headline
from planner.finding import Finding
from planner.plan import Plan
from planner.report.comparison import COLUMNS, comparison_row
from planner.report.plan import title
from planner.report.text import MARKS, why_fits_is_unknown
from planner.runs.comparison import Comparison


def plan_html(plan: Plan, found: Sequence[Finding]) -> str:
    """The headline of a plan, its findings, and its defaults folded away."""
    if plan.memory.fits is None:
        fits = f"unknown: {why_fits_is_unknown(plan.memory)}"
    else:
        fits = "✓ fits" if plan.memory.fits else "✗ does not fit"
    parts = [_table(title(plan), (), [*headline(plan, settled=True), ("verdict", fits)])]
    if found:
        rows = [(MARKS[f.level], f.message, f"→ {f.remedy}") for f in found]
        parts.append(_table("Findings", (), rows))
    assumed = plan.config.provenance.assumptions
    if assumed:
        rows = [(a.key, a.value, a.source) for a in assumed]
        parts.append(f"<details><summary>Defaults used: {len(assumed)}</summary>{_table('', (), rows)}</details>")
    return "\n".join(parts)


def comparison_html(comparison: Comparison) -> str:
    """Every row of a comparison."""
    caption = f"Predicted and measured on {comparison.device_name}, torch {comparison.torch}"
    return _table(caption, COLUMNS, [comparison_row(row) for row in comparison.rows])


def _table(caption: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = ["<table>", f"<caption>{escape(caption)}</caption>"] if caption else ["<table>"]
    if head:
        lines.append(f"<tr>{''.join(f'<th>{escape(cell)}</th>' for cell in head)}</tr>")
    for first, *others in rows:
        cells = "".join(f'<td style="text-align: left">{escape(cell)}</td>' for cell in others)
        lines.append(f'<tr><th style="text-align: left">{escape(first)}</th>{cells}</tr>')
    return "\n".join([*lines, "</table>"])
