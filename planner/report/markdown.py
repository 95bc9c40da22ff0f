"""A plan as Markdown, to paste into a review or an issue."""

from __future__ import annotations

from collections.abc import Sequence

from planner.analysis.headline import figures
from planner.finding import Finding
from planner.plan import Plan
from planner.report.plan import summary, title
from planner.report.text import MARKS, VERDICTS


def markdown(plan: Plan, found: Sequence[Finding], command: str) -> str:
    """Headline table, findings, the command that gives the same, and the whole summary."""
    rows = [f"| {f.label} | {f.text()} |" for f in figures(plan)]
    notes = [f"- {MARKS[f.level]} `{f.code}`: {f.message} → {f.remedy}" for f in found] or ["- ✓ no findings"]
    parts = [
        f"# {title(plan)}",
        "\n".join(["| | |", "|---|---|", *rows, f"| memory | {VERDICTS[plan.memory.fits]} |"]),
        "\n".join(["## Findings", "", *notes]),
        f"## The same by command\n\n```console\n$ {command}\n```",
        f"## Summary\n\n```text\n{summary(plan, found)}\n```",
    ]
    return "\n\n".join(parts) + "\n"
