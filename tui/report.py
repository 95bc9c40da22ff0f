"""Everything behind the headline: the findings, then the whole summary, to scroll through."""

from __future__ import annotations

from collections.abc import Sequence

from textual.app import ComposeResult
from textual.containers import ScrollableContainer
from textual.reactive import reactive
from textual.widgets import Static

from planner.checks import Finding
from planner.text import MARKS, summary
from tui.session import Result


def findings_text(found: Sequence[Finding]) -> str:
    """The findings as paragraphs for the pane's width; `planner.text` wraps for a page."""
    if not found:
        return "✓ nothing odd"
    return "\n".join(f"{MARKS[f.level]} [{f.code}]: {f.message}\n  → {f.remedy}" for f in found)


class Report(ScrollableContainer):
    """Findings wrap to the pane; the summary keeps its columns and scrolls sideways where the pane is narrow."""

    result: reactive[Result | None] = reactive(None)
    stale: reactive[bool] = reactive(False)

    def __init__(self) -> None:
        super().__init__(id="report")

    def compose(self) -> ComposeResult:
        yield Static(id="findings", markup=False)
        yield Static(id="summary", markup=False)

    def on_mount(self) -> None:
        self.border_title = "Findings and summary"

    def watch_result(self, result: Result | None) -> None:
        if result is not None:
            self.query_one("#findings", Static).update(findings_text(result.findings))
            self.query_one("#summary", Static).update(summary(result.plan, result.findings))

    def watch_stale(self, stale: bool) -> None:
        self.set_class(stale, "-stale")
