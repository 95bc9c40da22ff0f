"""Offers the form of a planner that ended without Ctrl+Q: taken, thrown away, or left for the next start."""

from __future__ import annotations

from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, VerticalScroll
from textual.screen import ModalScreen
from textual.widgets import Button, Label, Static

from planner.config.options import OPTION
from planner.errors import PlanError
from planner.inputs.flags import OPTION_NAMES
from planner.printable import message_text
from tui.kept_form import KeptForm
from tui.session import FormState, Session


class OfferScreen(ModalScreen[FormState | bool | None]):
    """Returns the state of the form that is taken, False to throw it away, None to leave it where it is."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape", "later", "Later")]

    def __init__(self, kept: KeptForm, session: Session) -> None:
        super().__init__()
        self.kept, self.session = kept, session

    def compose(self) -> ComposeResult:
        with VerticalScroll(classes="dialog", can_focus=False) as dialog:
            dialog.border_title = "A form that was not closed"
            yield Static(kept_text(self.kept), markup=False)
            yield Static(id="refusal", markup=False)
            with Horizontal(classes="buttons"):
                yield Button("Take it", id="take", variant="primary", compact=True)
                yield Button("Throw away", id="throw", variant="error", compact=True)
                yield Button("Later", id="later", compact=True)
            yield Label("Esc: later, it is offered again at the next start. Ctrl+Z undoes Take it.", classes="hint")

    @on(Button.Pressed, "#take")
    def _take(self) -> None:
        try:
            self.dismiss(self.kept.state(self.session))
        except PlanError as error:
            self.query_one("#refusal", Static).update(f"✗ {error.message()}")

    @on(Button.Pressed, "#throw")
    def _throw(self) -> None:
        self.dismiss(False)

    @on(Button.Pressed, "#later")
    def action_later(self) -> None:
        """Leave it where it is."""
        self.dismiss(None)


def kept_text(kept: KeptForm) -> str:
    """When and where it was edited, and its fields. A file's text is shown without what a terminal would execute."""
    saved = kept.saved[:16].replace("T", " ")
    lines = [f"Edited until {saved} in {kept.directory}; the planner ended without Ctrl+Q.", ""]
    lines += [f"run.toml: {kept.file}"] if kept.file is not None else []
    fields = [f"{OPTION[name].short}: {getattr(kept.flags, name)}" for name in kept.flags.given(*OPTION_NAMES)]
    return "\n".join(message_text(line) for line in [*lines, *fields])
