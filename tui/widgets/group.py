"""A group of fields that opens and closes; its fields are made when it is first opened."""

from __future__ import annotations

from typing import ClassVar

from textual import events
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Container, Vertical
from textual.reactive import reactive
from textual.widgets import Static

from planner.inputs.flags import Flags
from tui.fields import FieldGroup, fields_set
from tui.widgets.row import FieldRow


class GroupTitle(Static, can_focus=True):
    """The line that opens and closes a group: by Enter, Space, → and ←, or a click."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter,space", "fold", "Open or close", show=False),
        Binding("right", "fold(False)", "Open", show=False),
        Binding("left", "fold(True)", "Close", show=False),
    ]

    def on_click(self, event: events.Click) -> None:
        """A click is Enter."""
        event.stop()
        self.action_fold()

    def action_fold(self, closed: bool | None = None) -> None:
        """Open or close the group."""
        group = self.query_ancestor(GroupBox)
        group.opened = not group.opened if closed is None else not closed


class GroupBox(Vertical):
    """A title and, when open, a row for each field."""

    opened: reactive[bool] = reactive(False, init=False)

    def __init__(self, group: FieldGroup, flags: Flags) -> None:
        super().__init__(id=group.id)
        self.group, self.flags = group, flags
        self.effective: dict[str, str] = {}
        self.rows: list[FieldRow] = []
        self.set_reactive(GroupBox.opened, group.opened)

    def compose(self) -> ComposeResult:
        yield GroupTitle(self._title(), id=f"{self.group.id}-title", markup=False)
        with Container(classes="rows"):
            if self.opened:
                yield from self._made()

    def watch_opened(self, opened: bool) -> None:
        """Show the rows, made now if they were not yet."""
        place = self.query_one(".rows")
        place.display = opened
        if opened and not self.rows:
            place.mount_all(self._made())
        self.query_one(GroupTitle).update(self._title())

    def show(self, flags: Flags, effective: dict[str, str]) -> None:
        """Show the flags of the form, and the defaults of empty fields."""
        before = fields_set(self.group, self.flags)
        self.flags, self.effective = flags, effective
        for row in self.rows:
            if row.field in effective:
                row.input.placeholder = f"({effective[row.field]})"
        if fields_set(self.group, flags) != before:
            self.query_one(GroupTitle).update(self._title())

    def _made(self) -> list[FieldRow]:
        effect = self.effective
        self.rows = [
            FieldRow(name, getattr(self.flags, name) or "", f"({effect[name]})" if name in effect else "")
            for name in self.group.fields
        ]
        return self.rows

    def _title(self) -> str:
        count = fields_set(self.group, self.flags)
        filled = f"{count} set" if count else "all defaults"
        return f"{'▼' if self.opened else '▶'} {self.group.title}" + ("" if self.opened else f" · {filled}")
