"""The base of every tab: shows a `View`, and scrolls."""

from __future__ import annotations

from typing import ClassVar

from textual.containers import ScrollableContainer
from textual.reactive import var

from tui.session import View


class Pane(ScrollableContainer):
    """Shows `view`; `Results` gives a hidden pane none. A pane overrides `show`."""

    DEFAULT_CLASSES = "pane"
    HELP: ClassVar[str] = ""  # the text of F1 while the focus is in the pane
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
        """Columns for text, without the scroll bar."""
        return max(least, self.size.width - 3)

    def show(self, view: View) -> None:
        """Show the view."""
        raise NotImplementedError
