"""A plan as Markdown, to paste into a review or an issue."""

from __future__ import annotations

from collections.abc import Sequence

from planner.analysis.headline import figures
from planner.finding import Finding
from planner.plan import Plan
from planner.report.plan import summary, title
from planner.report.text import MARKS


def markdown(plan: Plan, found: Sequence[Finding], command: str) -> str:
    """Headline table, findings, the command that gives the same, and the whole summary."""
    rows = [f"| {f.label} | {f.text()} |" for f in figures(plan)]
    verdict = {True: "✓ fits", False: "✗ does not fit", None: "? unknown"}[plan.memory.fits]
    notes = [f"- {MARKS[f.level]} `{f.code}`: {f.message} → {f.remedy}" for f in found] or ["- ✓ no findings"]
    parts = [
        f"# {title(plan)}",
        "\n".join(["| | |", "|---|---|", *rows, f"| memory | {verdict} |"]),
        "\n".join(["## Findings", "", *notes]),
        f"## The same by command\n\n```console\n$ {command}\n```",
        f"## Summary\n\n```text\n{summary(plan, found)}\n```",
    ]
    return "\n\n".join(parts) + "\n"
