"""One field: its label, its text, and the message where the text is wrong."""

from __future__ import annotations

from dataclasses import dataclass

from textual import events
from textual.app import ComposeResult
from textual.containers import Container
from textual.content import Content
from textual.geometry import Size
from textual.message import Message
from textual.reactive import Reactive
from textual.suggester import SuggestFromList
from textual.widgets import Input, Static

from planner.config.options import OPTION
from planner.errors import PlanError
from planner.inputs.field_names import names_of
from planner.printable import printable
from tui.messages import form_message


class FieldInput(Input):
    """A compact input; `?` opens the list of keys, as no field takes one."""

    virtual_size = Reactive(Size(0, 0))  # of a text in one line of a given width: no key changes the layout

    def check_consume_key(self, key: str, character: str | None) -> bool:
        """As an input, but for `?`."""
        return character != "?" and super().check_consume_key(key, character)

    async def _on_key(self, event: events.Key) -> None:
        """Handle Backspace and similar keys now: a binding bubbles to the app, and later keys would overtake it."""
        found = self._bindings.key_to_bindings.get(event.key)
        if event.character == "?":
            event.stop()
            event.prevent_default()
            await self.app.run_action("keys")
        elif found and found[0].action != "submit" and await self.app.run_action(found[0].action, self):
            event.stop()
            event.prevent_default()  # an action that was not possible, such as scrolling, bubbles on


class FieldRow(Container):
    """A label and an input; below them the message about a wrong text.

    The row draws the label itself, left of its input: a Label would be one widget more for each field.
    """

    @dataclass
    class Edited(Message):
        """The field has a new text; None: it is empty."""

        name: str
        text: str | None

    def __init__(self, name: str, text: str, placeholder: str) -> None:
        super().__init__(id=f"row-{name}")
        self.field, self.text = name, text
        names = names_of(name)
        self.input = FieldInput(
            text,
            id=name,
            placeholder=placeholder,
            compact=True,
            select_on_focus=False,
            suggester=SuggestFromList(names, case_sensitive=False) if names else None,
            tooltip=OPTION[name].sentence,
        )
        self.why: Static | None = None

    def compose(self) -> ComposeResult:
        yield self.input

    def render(self) -> Content:
        """The label: bold while the field has the focus, with ✗ while its text is wrong."""
        short = OPTION[self.field].short
        name = f"✗ {short}" if self.has_class("-wrong") else short
        return Content.styled(name, "bold $foreground") if self.input.has_focus else Content(name)

    def on_descendant_focus(self) -> None:
        self.refresh()

    def on_descendant_blur(self) -> None:
        self.refresh()

    def on_click(self) -> None:
        """A click on the label focuses the input."""
        self.input.focus()

    def on_input_changed(self, event: Input.Changed) -> None:
        """Post the new text; a field of blanks is empty."""
        event.stop()
        self.text = event.value
        self.post_message(self.Edited(self.field, event.value.strip() or None))

    def show_text(self, text: str) -> None:
        """Fill in a text, such as a file's, without what a terminal would execute."""
        text = printable(text)
        if self.text.strip() != text:
            self.text = text
            self.input.value = text

    def mark(self, wrong: bool, error: PlanError | None) -> None:
        """Mark the text as wrong, by a sign as well as by colour; show `error` here unless it is None."""
        if wrong != self.has_class("-wrong"):
            self.set_class(wrong, "-wrong")
            self.input.set_class(wrong, "-invalid")
            self.refresh()  # the sign
        if error is None:
            if self.why is not None:
                self.why.remove()
                self.why = None
        elif self.why is not None:
            self.why.update(form_message(error, self.field))
        else:
            self.why = Static(form_message(error, self.field), classes="why", markup=False)
            self.mount(self.why)
