"""One field: its name, what was typed, and, where that cannot be used, why."""

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

from planner.errors import PlanError
from planner.inputs.field_names import names_of
from planner.inputs.fields import FLAGS, label


class FieldInput(Input):
    """A compact input that leaves `?` to the list of keys: no field takes one."""

    virtual_size = Reactive(Size(0, 0))  # of a text in one line of a given width: no key lays the screen out anew

    def check_consume_key(self, key: str, character: str | None) -> bool:
        """As an input, but for `?`."""
        return character != "?" and super().check_consume_key(key, character)

    async def _on_key(self, event: events.Key) -> None:
        """Backspace and its like at once: a binding climbs to the app, and keys after it would overtake it."""
        found = self._bindings.key_to_bindings.get(event.key)
        if event.character == "?":
            event.stop()
            event.prevent_default()
            await self.app.run_action("keys")
        elif found and found[0].action != "submit" and await self.app.run_action(found[0].action, self):
            event.stop()
            event.prevent_default()  # one that it could not do, such as scrolling, climbs on


class Row(Container):
    """A name and an input beside it; below them the message about the text, while there is one.

    The row draws the name itself, left of its input's margin: a label would be one widget more for each field.
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
            tooltip=FLAGS[name][2],
        )
        self.why: Static | None = None

    def compose(self) -> ComposeResult:
        yield self.input

    def render(self) -> Content:
        """The field's name: bold while the field has the focus, with a sign while its text cannot be used."""
        name = f"✗ {label(self.field)}" if self.has_class("-wrong") else label(self.field)
        return Content.styled(name, "bold $foreground") if self.input.has_focus else Content(name)

    def on_descendant_focus(self) -> None:
        self.refresh()

    def on_descendant_blur(self) -> None:
        self.refresh()

    def on_click(self) -> None:
        """A click on the name is one into the field."""
        self.input.focus()

    def on_input_changed(self, event: Input.Changed) -> None:
        """Pass on what was typed; a field of blanks is an empty one."""
        event.stop()
        self.text = event.value
        self.post_message(self.Edited(self.field, event.value.strip() or None))

    def show_text(self, text: str) -> None:
        """Put a text there that was typed before."""
        if self.text.strip() != text:
            self.text = text
            self.input.value = text

    def mark(self, wrong: bool, error: PlanError | None) -> None:
        """Show, by a sign as well as by colour, that the text cannot be used; `error` is told here, if anywhere."""
        if wrong != self.has_class("-wrong"):
            self.set_class(wrong, "-wrong")
            self.input.set_class(wrong, "-invalid")
            self.refresh()  # the sign
        if error is None:
            if self.why is not None:
                self.why.remove()
                self.why = None
        elif self.why is not None:
            self.why.update(error.message())
        else:
            self.why = Static(error.message(), classes="why", markup=False)
            self.mount(self.why)
