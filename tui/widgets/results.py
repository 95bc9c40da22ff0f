"""The results: the headline always, below it one of the tabs. A pane is made when its tab is first shown."""

from __future__ import annotations

from textual.app import ComposeResult
from textual.containers import Container, Vertical
from textual.reactive import var
from textual.widgets import Tab, Tabs

from tui.panes import panes
from tui.panes.pane import Pane
from tui.session import View
from tui.widgets.headline import Headline


class Results(Vertical):
    """Gives `view` to the headline and to the current pane; a hidden pane gets it when it is shown."""

    view: var[View | None] = var(None)

    def compose(self) -> ComposeResult:
        yield Headline()
        yield Tabs(*(Tab(kind.title, id=f"tab-{kind.id}") for kind in panes()), id="tabs")
        yield Container(id="pane")

    def watch_view(self, view: View | None) -> None:
        """Show the new view."""
        if self.is_mounted and self.query(Headline):  # a thread may end while the planner is being closed
            self.query_one(Headline).view = view
            pane = self.pane
            if pane is not None:
                pane.view = view

    @property
    def active(self) -> str:
        """The id of the current tab."""
        return self.query_one(Tabs).active.removeprefix("tab-")

    @property
    def pane(self) -> Pane | None:
        """The current pane; None before the first is made."""
        found = self.query(f"#pane-{self.active}")
        return found.first(Pane) if found else None

    def open(self, id: str) -> None:
        """Show a tab."""
        self.query_one(Tabs).active = f"tab-{id}"

    async def on_tabs_tab_activated(self, event: Tabs.TabActivated) -> None:
        """Show the tab's pane and hide the others."""
        event.stop()
        await self.show((event.tab.id or "").removeprefix("tab-"))

    async def show(self, wanted: str) -> None:
        """Show a tab; its pane is there when this returns."""
        self.open(wanted)
        place = self.query_one("#pane", Container)
        if not place.query(f"#pane-{wanted}"):
            await place.mount(next(kind for kind in panes() if kind.id == wanted).make())
        for pane in place.query_children(Pane):
            pane.display = pane.id == f"pane-{wanted}"
            if pane.display:
                pane.view = self.view
