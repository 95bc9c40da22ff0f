"""Summary: the findings, the difference to the pinned plan, and the plan as text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from textual.app import ComposeResult

from planner.finding import Finding
from planner.report.difference import NOTE, difference_lines
from planner.report.plan import summary, title
from planner.report.text import WIDTH, Page, wrap
from tui.messages import with_labels
from tui.panes.pane import Pane
from tui.session import Pinned, View
from tui.widgets.text import Text


class SummaryPane(Pane):
    """Sentences wrap to the pane; the tables keep their columns and scroll sideways where the pane is narrow."""

    def compose(self) -> ComposeResult:
        yield Text(id="differences")
        yield Text(id="findings")
        yield Text(id="summary")

    def on_mount(self) -> None:
        self.query_one("#differences").display = False

    def show(self, view: View) -> None:
        """Findings first: they need an action."""
        width = min(WIDTH, self.room())
        differences = self.query_one("#differences", Text)
        differences.display = view.pinned is not None
        if view.pinned is not None:
            differences.put("\n".join(_compared(view, view.pinned, width)))
        self.query_one("#findings", Text).put(findings_text(view.result.findings, width))
        self.query_one("#summary", Text).put(summary(view.result.plan, None, width))


def findings_text(found: Sequence[Finding], width: int) -> str:
    """The findings, wrapped to `width` columns."""
    named = [replace(f, message=with_labels(f.message), remedy=with_labels(f.remedy)) for f in found]
    return "\n".join(Page(width, indent=0).findings(named)) or "✓ no findings"


def _compared(view: View, pinned: Pinned, width: int) -> list[str]:
    names = [*wrap(f"Pinned: {title(pinned.result.plan)}", indent=0, width=width)]
    names += wrap(f"Now:    {title(view.result.plan)}", indent=0, width=width)
    if view.differences is None:
        return [*names, "", "… computing the differences"]
    return [*names, "", *difference_lines(view.differences, width), "", *wrap(NOTE, indent=0, width=width)]
