"""The numbers that decide, always in sight: does it fit, how fast, how long, how much."""

from __future__ import annotations

from textual.content import Content
from textual.reactive import var

from planner.analysis.headline import headline
from tui.session import View
from tui.widgets.text import Text

LABEL = 7
VERDICTS = {True: ("✓ fits", "$success"), False: ("✗ does not fit", "$error"), None: ("? unknown", "$warning")}


class Headline(Text):
    """The last result that could be computed; dimmed, and called so, when the form has moved on to what cannot be."""

    view: var[View | None] = var(None)

    def __init__(self) -> None:
        super().__init__("? nothing to show yet: mend the form", id="headline")

    def watch_view(self, view: View | None) -> None:
        """Write the lines anew. Stale is said in words too: dimming is a colour, and some terminals show none."""
        self.border_title = "Result" if view is None or not view.stale else "Last valid result"
        if view is None:
            return
        self.set_class(view.stale, "-stale")
        words, colour = VERDICTS[view.result.plan.memory.fits]
        marks = ("" if view.result.settled else " …") + (" · ! last valid result" if view.stale else "")
        first = Content.assemble((words, f"bold {colour}"), marks + (" · pinned: see Summary" if view.pinned else ""))
        lines = [
            Content.assemble((f"{label:<{LABEL}}", "dim"), value)
            for label, value in headline(view.result.plan, view.result.settled)
        ]
        self.put(Content("\n").join([first, *lines]))
