"""The headline, always visible: does it fit, how fast, how long, how much."""

from __future__ import annotations

from textual.content import Content
from textual.reactive import var

from planner.analysis.headline import headline
from planner.report.text import VERDICTS
from tui.session import View
from tui.widgets.text import Text

_LABEL_COLUMNS = 7
_COLOURS = {True: "$success", False: "$error", None: "$warning"}


class Headline(Text):
    """The last valid result; dimmed and labelled as such while a field of the form is wrong."""

    view: var[View | None] = var(None)

    def __init__(self) -> None:
        super().__init__("? no result yet: fix the form", id="headline")

    def watch_view(self, view: View | None) -> None:
        """Write the lines. A stale result is labelled too: dimming is a colour, and some terminals show none."""
        self.border_title = "Result" if view is None or not view.stale else "Last valid result"
        if view is None:
            return
        self.set_class(view.stale, "-stale")
        fits = view.result.plan.memory.fits
        marks = ("" if view.result.settled else " …") + (" · ! last valid result" if view.stale else "")
        pinned = " · pinned: see Summary" if view.pinned else ""
        first = Content.assemble((VERDICTS[fits], f"bold {_COLOURS[fits]}"), marks + pinned)
        lines = [
            Content.assemble((f"{label:<{_LABEL_COLUMNS}}", "dim"), value)
            for label, value in headline(view.result.plan, view.result.settled)
        ]
        self.put(Content("\n").join([first, *lines]))
