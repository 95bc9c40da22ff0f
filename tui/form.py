"""The form: one row for each main field. It holds text and knows nothing of what the text means."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, VerticalScroll
from textual.message import Message
from textual.suggester import SuggestFromList
from textual.widgets import Input, Label

from planner.typed import Typed
from tui.fields import Field, main_fields


class Row(Horizontal):
    """A label and the input of one field."""

    def __init__(self, field: Field, text: str) -> None:
        super().__init__(id=f"row-{field.name}")
        self.field, self.text = field, text

    def compose(self) -> ComposeResult:
        names = ", ".join(self.field.known)
        suggester = SuggestFromList(self.field.known, case_sensitive=False) if self.field.known else None
        yield Label(self.field.label, markup=False)
        yield Input(
            self.text,
            id=self.field.name,
            compact=True,
            select_on_focus=False,
            suggester=suggester,
            tooltip=f"{self.field.help}\n{names}".strip(),
        )

    # events, not the style :focus-within, whose rules are not applied anew to a neighbour of what has the focus
    def on_descendant_focus(self) -> None:
        self.query_one(Label).add_class("-current")

    def on_descendant_blur(self) -> None:
        self.query_one(Label).remove_class("-current")

    def mark(self, wrong: bool) -> None:
        """Show, by a sign as well as by colour, that the field's text cannot be used."""
        if wrong == self.has_class("-wrong"):
            return  # writing a label lays the whole screen out, and there are thirteen
        self.set_class(wrong, "-wrong")
        self.query_one(Input).set_class(wrong, "-invalid")
        self.query_one(Label).update(f"✗ {self.field.label}" if wrong else self.field.label)


class PlanForm(VerticalScroll, can_focus=False):
    """What was typed so far; tells its parent at every change."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up", "app.focus_previous", "Field above", show=False),
        Binding("down,enter", "app.focus_next", "Field below", show=False),
    ]

    @dataclass
    class Changed(Message):
        """Some field has a new text."""

        typed: Typed

    def __init__(self, typed: Typed) -> None:
        super().__init__(id="form")
        self.typed = typed

    def compose(self) -> ComposeResult:
        for field in main_fields():
            yield Row(field, getattr(self.typed, field.name) or "")

    def on_mount(self) -> None:
        self.border_title = "Run"

    def on_input_changed(self, event: Input.Changed) -> None:
        """Pass on what was typed; a field of blanks is an empty one."""
        event.stop()
        name = event.input.id
        assert name is not None
        typed = replace(self.typed, **{name: event.value.strip() or None})
        if typed != self.typed:
            self.typed = typed
            self.post_message(self.Changed(typed))

    def show_in_effect(self, values: dict[str, str]) -> None:
        """Say in each empty field which value stands there."""
        for name, value in values.items():
            self.query_one(f"#{name}", Input).placeholder = f"({value})"

    def mark(self, wrong: frozenset[str]) -> None:
        """Mark the fields named in `wrong`, and no other."""
        for row in self.query(Row):
            row.mark(row.field.name in wrong)
