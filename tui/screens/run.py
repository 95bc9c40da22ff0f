"""The dialogs of a run: start, attach, kill."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

from textual import on, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.screen import ModalScreen
from textual.widgets import Button, Input, Label, OptionList, Static
from textual.widgets.option_list import Option

from planner.errors import FileError, PlanError
from planner.paths import is_folder
from planner.printable import printable
from planner.runs.directory import is_run, owner_of
from tui.files import file_named
from tui.trainer import StartRequest
from tui.watched import known_runs

ESCAPE: list[BindingType] = [Binding("escape", "cancel", "Cancel")]


class StartScreen(ModalScreen[None]):
    """Asks for the directory and limits of a new run; a refusal of `begin` is shown here, and nothing is started."""

    BINDINGS: ClassVar[list[BindingType]] = ESCAPE
    FIELDS: ClassVar[tuple[tuple[str, str, str], ...]] = (
        ("directory", "Directory", "new or empty"),
        ("data", "Data", "a path; empty: the built-in text"),
        ("limit", "Time limit", "such as 2h30m; empty: none"),
        ("stop", "Stop after step", "such as 500; empty: the whole run"),
    )

    def __init__(self, directory: Path, begin: Callable[[StartRequest], None]) -> None:
        super().__init__()
        self.directory, self.begin = directory, begin

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog") as dialog:
            dialog.border_title = "Train the plan in the form"
            for name, label, placeholder in self.FIELDS:
                with Horizontal(classes="line"):
                    yield Label(label)
                    first = printable(str(self.directory)) if name == "directory" else ""
                    yield Input(first, id=f"run-{name}", placeholder=placeholder, compact=True)
            yield Static(id="refusal", markup=False)
            with Horizontal(classes="buttons"):
                yield Button("Start", id="start", variant="primary", compact=True)
                yield Button("Cancel", id="cancel", compact=True)
            yield Label("Enter starts, Esc cancels. It continues if the planner is closed.", classes="hint")

    @on(Input.Submitted)
    @on(Button.Pressed, "#start")
    def _start(self) -> None:
        directory, data, limit, stop = (self.query_one(f"#run-{n}", Input).value.strip() for n, _, _ in self.FIELDS)
        try:
            if not directory:
                raise FileError("the directory is missing", remedy=f"give one, such as {self.directory}")
            self.begin(StartRequest(file_named(directory), data, stop, limit))
        except PlanError as error:
            self.query_one("#refusal", Static).update(f"✗ {error.message()}")
        else:
            self.dismiss(None)

    @on(Button.Pressed, "#cancel")
    def action_cancel(self) -> None:
        """Start nothing."""
        self.dismiss(None)


class AttachScreen(ModalScreen[Path | None]):
    """Returns a run directory: one of the list, or any that is typed."""

    BINDINGS: ClassVar[list[BindingType]] = ESCAPE

    def __init__(self, title: str) -> None:
        super().__init__()
        self.wanted = title

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog") as dialog:
            dialog.border_title = self.wanted
            yield Input(id="run-path", placeholder="RUN_DIR, or ↓ for the list", compact=True)
            yield OptionList(id="runs", markup=False, compact=True)
            yield Static(id="refusal", markup=False)
            yield Label("Enter attaches, Esc cancels. ▶ is running now.", classes="hint")

    def on_mount(self) -> None:
        self._list()

    @work(thread=True)
    def _list(self) -> None:
        found = known_runs()
        marked = [(f"{'▶' if owner_of(run) is not None else ' '} {run}", str(run)) for run in found]
        self.app.call_from_thread(self._listed, marked)

    def _listed(self, marked: list[tuple[str, str]]) -> None:
        self.query_one("#runs", OptionList).add_options(Option(printable(text), id=run) for text, run in marked)

    def on_key(self) -> None:
        """Remove the message about the old text."""
        self.query_one("#refusal", Static).update("")

    def key_down(self) -> None:
        """Move from the input to the list."""
        if self.focused is not None and self.focused.id == "run-path":
            self.query_one("#runs").focus()

    @on(OptionList.OptionSelected)
    def _picked(self, event: OptionList.OptionSelected) -> None:
        self._return(Path(str(event.option_id)))

    @on(Input.Submitted)
    def _typed(self, event: Input.Submitted) -> None:
        if event.value.strip():
            try:
                self._return(file_named(event.value.strip()))
            except PlanError as error:
                self.query_one("#refusal", Static).update(f"✗ {error.message()}")

    def _return(self, directory: Path) -> None:
        if is_run(directory):
            self.dismiss(directory)
            return
        why = "it has no config.toml, metrics.jsonl or events.jsonl" if is_folder(directory) else "it does not exist"
        error = FileError(f"{directory} is not a run directory", why=why, remedy="give the RUN_DIR of gptplan run")
        self.query_one("#refusal", Static).update(f"✗ {error.message()}")

    def action_cancel(self) -> None:
        """Attach to nothing."""
        self.dismiss(None)


class KillScreen(ModalScreen[bool]):
    """Asks whether to kill a run that was already asked to stop."""

    BINDINGS: ClassVar[list[BindingType]] = ESCAPE

    def __init__(self, directory: Path) -> None:
        super().__init__()
        self.directory = directory

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog") as dialog:
            dialog.border_title = "Kill the run?"
            yield Static(
                f"{self.directory} was asked to stop: it ends after the current step, with a checkpoint. If you kill "
                "it now, the steps since its last checkpoint are lost.",
                markup=False,
            )
            with Horizontal(classes="buttons"):
                yield Button("Wait", id="wait", variant="primary", compact=True)
                yield Button("Kill", id="kill", variant="error", compact=True)

    @on(Button.Pressed, "#kill")
    def _kill(self) -> None:
        self.dismiss(True)

    @on(Button.Pressed, "#wait")
    def action_cancel(self) -> None:
        """Wait for its end."""
        self.dismiss(False)
