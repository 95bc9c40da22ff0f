"""Jump: a letter over every target; its key moves the focus there."""

from __future__ import annotations

from collections.abc import Sequence
from string import ascii_lowercase
from typing import ClassVar

from textual import events
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.screen import ModalScreen
from textual.widget import Widget
from textual.widgets import Input, Label

KEYS = "123456789" + ascii_lowercase + ascii_lowercase.upper()


class JumpScreen(ModalScreen[Widget | None]):
    """Returns the widget whose key was pressed; None for any other key."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape,ctrl+o", "dismiss", "Cancel")]

    def __init__(self, targets: Sequence[Widget]) -> None:
        super().__init__()
        self.targets = dict(zip(KEYS, targets, strict=False))

    def compose(self) -> ComposeResult:
        for key, widget in self.targets.items():
            letter = Label(key, classes="jump", markup=False)
            letter.styles.offset = widget.region.offset - (int(isinstance(widget, Input)), 0)  # before its text
            yield letter

    def on_key(self, event: events.Key) -> None:
        """Return the target of the key."""
        if event.character in self.targets:
            event.stop()
            self.dismiss(self.targets[event.character])
