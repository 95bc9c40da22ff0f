"""The form: groups of fields. It holds text and does not interpret it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.message import Message
from textual.widgets import Static

from planner.errors import PlanError
from planner.inputs.flags import Flags
from tui.fields import group_of, groups
from tui.messages import form_message
from tui.widgets.group import GroupBox
from tui.widgets.row import FieldRow


class PlanForm(VerticalScroll, can_focus=False):
    """The flags as filled in; posts `Changed` at every change."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up", "app.focus_previous", "Field above", show=False),
        Binding("down,enter", "app.focus_next", "Field below", show=False),
    ]

    @dataclass
    class Changed(Message):
        """Some field has a new text."""

        flags: Flags

    def __init__(self, flags: Flags) -> None:
        super().__init__(id="form")
        self.flags = flags

    def compose(self) -> ComposeResult:
        for group in groups():
            yield GroupBox(group, self.flags)
        yield Static(id="mistake", markup=False)  # about no single field

    def on_mount(self) -> None:
        self.border_title = "Run"
        self.query_one("#mistake").display = False

    @on(FieldRow.Edited)
    def _edited(self, event: FieldRow.Edited) -> None:
        """Post the new flags."""
        event.stop()
        flags = replace(self.flags, **{event.name: event.text})
        if flags != self.flags:
            self.flags = flags
            self.post_message(self.Changed(flags))

    def show_effective(self, flags: Flags, values: dict[str, str]) -> None:
        """Show the default in each empty field, and the number of filled fields in each group."""
        for box in self.query(GroupBox):
            box.show(flags, values)

    def restore(self, flags: Flags) -> None:
        """Fill in earlier flags. Not while typing: it would overtake keys that are not handled yet."""
        self.flags = flags
        for row in self.query(FieldRow):
            row.show_text(getattr(flags, row.field) or "")
        for box in self.query(GroupBox):
            box.show(flags, box.effective)

    def mark(self, error: PlanError | None, named: frozenset[str]) -> None:
        """Mark the fields in `named`, and no other; the message stands under the first of them, else under the form."""
        if named:
            for box in self.query(GroupBox):
                if not named.isdisjoint(box.group.fields) and not box.opened:
                    box.opened = True  # its rows are there after the next turn
                    self.call_after_refresh(self.mark, error, named)
                    return
        rows = [row for row in self.query(FieldRow) if row.field in named]
        focused = self.app.focused.id if self.app.focused is not None else None
        chosen = next((row for row in rows if row.field == focused), rows[0] if rows else None)
        for row in self.query(FieldRow):
            row.mark(row in rows, error if row is chosen else None)
        below = self.query_one("#mistake", Static)
        below.display = error is not None and chosen is None
        if error is not None and chosen is None:
            below.update(f"✗ {form_message(error)}")
            below.scroll_visible(animate=False)
        elif chosen is not None:
            self.call_after_refresh(chosen.scroll_visible, animate=False)

    def open_group_of(self, field: str) -> None:
        """Make a field's row visible."""
        self.query_one(f"#{group_of(field)}", GroupBox).opened = True
