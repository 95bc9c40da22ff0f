"""Opens another run.toml; a mistake is shown here, and the form does not change."""

from __future__ import annotations

from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.screen import ModalScreen
from textual.widgets import Button, Input, Label, Static

from planner.errors import FileError, PlanError
from planner.printable import printable
from tui.files import file_named
from tui.session import Session


class OpenScreen(ModalScreen[Session | None]):
    """Returns the session with the file, None when cancelled."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape", "cancel", "Cancel")]

    def __init__(self, session: Session) -> None:
        super().__init__()
        self.session = session

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog") as dialog:
            dialog.border_title = "Open a run.toml"
            yield Input(printable(str(self.session.file or "")), id="path", placeholder="run.toml", compact=True)
            yield Static(id="refusal", markup=False)
            with Horizontal(classes="buttons"):
                yield Button("Open", id="open", variant="primary", compact=True)
                yield Button("Cancel", id="cancel", compact=True)
            yield Label("Enter opens, Esc cancels. Ctrl+Z undoes it.", classes="hint")

    @on(Input.Submitted, "#path")
    @on(Button.Pressed, "#open")
    def _open(self) -> None:
        name = self.query_one("#path", Input).value.strip()
        try:
            if not name:
                raise FileError("the name is missing", remedy="give one, such as run.toml")
            self.dismiss(self.session.opened(file_named(name)))
        except PlanError as error:
            self.query_one("#refusal", Static).update(f"✗ {error.message()}")

    @on(Button.Pressed, "#cancel")
    def action_cancel(self) -> None:
        """Leave everything as it is."""
        self.dismiss(None)
