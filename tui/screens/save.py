"""Saves a file: asks for its name, and overwrites only after a second confirmation."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.screen import ModalScreen
from textual.widgets import Button, Input, Label, Static

from planner.errors import FileError
from planner.paths import is_file
from planner.printable import printable
from tui.files import file_named


class SaveScreen(ModalScreen[Path | None]):
    """Writes a file; returns the path that was written, None when cancelled.

    write: writes the file, given its path and whether one of that name is replaced; may raise FileError.
    """

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape", "cancel", "Cancel")]

    def __init__(self, what: str, name: str, write: Callable[[Path, bool], None]) -> None:
        super().__init__()
        self.what, self.file_name, self.write = what, name, write

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog") as dialog:
            dialog.border_title = f"Save {self.what} as"
            yield Input(printable(self.file_name), id="path", placeholder=printable(self.file_name), compact=True)
            yield Static(id="refusal", markup=False)
            with Horizontal(classes="buttons"):
                yield Button("Save", id="save", variant="primary", compact=True)
                yield Button("Overwrite", id="overwrite", variant="error", compact=True)
                yield Button("Cancel", id="cancel", compact=True)
            yield Label("Enter saves, Esc cancels", classes="hint")

    def on_mount(self) -> None:
        self._offer_overwrite(False)

    @on(Input.Changed, "#path")
    def _another_name(self) -> None:
        # the confirmation was for the other file
        self.query_one("#refusal", Static).update("")
        self._offer_overwrite(False)

    @on(Input.Submitted, "#path")
    @on(Button.Pressed, "#save")
    def _save(self) -> None:
        self._write(overwrite=False)

    @on(Button.Pressed, "#overwrite")
    def _save_over(self) -> None:
        self._write(overwrite=True)

    @on(Button.Pressed, "#cancel")
    def action_cancel(self) -> None:
        """Leave without writing."""
        self.dismiss(None)

    def _write(self, *, overwrite: bool) -> None:
        name = self.query_one("#path", Input).value.strip()
        path = Path(name)
        try:
            if not name:
                raise FileError("the name is missing", remedy=f"give one, such as {self.file_name}")
            path = file_named(name)
            self.write(path, overwrite)
        except FileError as error:
            may = is_file(path) and not overwrite
            remedy = "give another name, or choose Overwrite" if may else error.remedy
            refusal = FileError(error.what, error.why, remedy)  # the command's --force is a button here
            self.query_one("#refusal", Static).update(f"✗ {refusal.message()}")
            self._offer_overwrite(may)
        else:
            self.dismiss(path)

    def _offer_overwrite(self, offered: bool) -> None:
        self.query_one("#overwrite", Button).display = offered
