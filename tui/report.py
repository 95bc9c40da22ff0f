"""Everything behind the headline: the findings, then the whole summary, to scroll through."""

from __future__ import annotations

from collections.abc import Sequence

from textual.app import ComposeResult
from textual.containers import ScrollableContainer
from textual.reactive import reactive
from textual.widgets import Static

from planner.finding import Finding
from planner.text import MARKS, summary, wrap
from tui.session import Result

NARROWEST = 20


def findings_text(found: Sequence[Finding], width: int) -> str:
    """The findings, wrapped to `width` columns; those in the summary are wrapped for a page."""
    if not found:
        return "✓ nothing odd"
    lines = []
    for f in found:
        lines += [f"{MARKS[f.level]} [{f.code}]"]
        lines += [*wrap(f.message, indent=2, width=width), *wrap(f"→ {f.remedy}", indent=2, width=width)]
    return "\n".join(lines)


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
            self._write_findings()
            self.query_one("#summary", Static).update(summary(result.plan, result.findings))

    def on_resize(self) -> None:
        # after the layout: while it runs, the width is the old one
        self.call_after_refresh(self._write_findings)

    def _write_findings(self) -> None:
        place = self.query_one("#findings", Static)
        if self.result is not None:
            place.update(findings_text(self.result.findings, max(NARROWEST, place.content_size.width)))

    def watch_stale(self, stale: bool) -> None:
        self.set_class(stale, "-stale")
