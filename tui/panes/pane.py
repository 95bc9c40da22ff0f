"""What every tab is: something that shows a `View`, and scrolls."""

from __future__ import annotations

from typing import ClassVar

from textual.containers import ScrollableContainer
from textual.reactive import var

from tui.session import View


class Pane(ScrollableContainer):
    """Shows `view` when it is on top: `Results` gives a hidden pane nothing. A pane overrides `show`."""

    DEFAULT_CLASSES = "pane"
    HELP: ClassVar[str] = ""  # what F1 says while the pane, or something in it, has the focus
    view: var[View | None] = var(None)

    def watch_view(self, view: View | None) -> None:
        """Dim what is stale, then show."""
        if view is not None:
            self.set_class(view.stale, "-stale")
            self.show(view)

    def on_resize(self) -> None:
        # after the layout: while it runs, the width is the old one
        self.call_after_refresh(self.watch_view, self.view)

    def room(self, least: int = 20) -> int:
        """Columns for text, the scroll bar's left out."""
        return max(least, self.size.width - 3)

    def show(self, view: View) -> None:
        """Write what the pane is about."""
        raise NotImplementedError
