"""What was read from another trainer's log or profile, as text for people."""

from __future__ import annotations

from planner.report.text import WIDTH, Page
from planner.runs.comparison import Comparison
from planner.runs.logs.compare_trace import TraceComparison
from planner.runs.logs.read import WARM, RunLog
from planner.units import format_duration, format_number


def log_sentences(log: RunLog, comparison: Comparison, width: int = WIDTH) -> list[str]:
    """Whose log it is, which lines the medians are of, and the notes of rows."""
    page = Page(width)
    steps = "" if log.first_step is None else f", steps {log.first_step:,} to {log.last_step:,}"
    several = log.warm_lines < log.lines
    of = f"after the first {WARM} steps, {log.warm_lines:,} lines" if several else f"of all {log.lines:,} lines"
    lines = "1 line looks" if log.unread == 1 else f"{log.unread:,} lines look"
    unread = f" {lines} like its own and {'was' if log.unread == 1 else 'were'} not understood." if log.unread else ""
    found = [f"Log of {log.title}{steps}: medians {of}.{unread}"]
    found += [f"{row.key}: {row.note}" for row in comparison.rows if row.note and row.measured is not None]
    found += [f"{row.key}: {row.note}" for row in comparison.rows if row.key == "last_loss" and row.measured is None]
    return [line for sentence in found if not sentence.endswith(": ") for line in page.sentence(sentence)]


def trace_lines(found: TraceComparison, width: int = WIDTH) -> str:
    """Kernel classes beside the parts of a step, the worst first, then the longest kernels of that class."""
    page = Page(width)
    spell = format_duration if found.steps else _share
    rows = [("", "predicted", "measured", "measured/predicted", "kernels")]
    for row in found.rows:
        ratio = "" if row.ratio is None else format_number(row.ratio)
        rows.append((row.name, spell(row.predicted), spell(row.measured), ratio, f"{row.kernels:,}"))
    steps = f"a step, mean of {found.steps}" if found.steps else "shares: the trace marks no steps"
    title = f"Kernels of the trace and parts of the plan, {steps}"
    worst = found.rows[0] if found.rows else None
    lines = [] if worst is None else [f"Longest of {worst.name}: {', '.join(worst.longest)}"] if worst.longest else []
    return page.section(
        title, *page.table(rows, frozenset({1, 2, 3, 4})), *[part for line in lines for part in page.sentence(line)]
    )


def _share(value: float | None) -> str:
    return "unknown" if value is None else f"{100 * value:.3g} %"
