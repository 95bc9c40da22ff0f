"""The terminal planner: a form, its live result, and the command that says the same.

State goes one way: the form says what was typed, the app asks the library once, and every pane shows
`result` and `error`. No widget computes.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import ClassVar

from textual.app import App, ComposeResult, SystemCommand
from textual.binding import Binding, BindingType
from textual.containers import Container, Vertical
from textual.reactive import reactive
from textual.screen import Screen
from textual.widgets import Footer, Static

from planner.errors import PlanError
from planner.typed import Typed
from tui.fields import main_fields
from tui.form import PlanForm
from tui.headline import Headline
from tui.help_screen import HelpScreen
from tui.mistake import Mistake
from tui.report import Report
from tui.save_screen import SaveScreen
from tui.session import Result, Session, command_of, fields_named, in_effect, result_of

SAVE_AS = "run.toml"


class PlannerApp(App[None]):
    """One screen: what was typed on the left, what follows from it on the right."""

    TITLE = "gptplan"
    CSS_PATH = "app.tcss"
    # two panes need 100 columns; below they stand one above the other, and two columns of fields need 76
    HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (76, "-medium"), (100, "-wide")]  # noqa: RUF012  an instance variable to Textual, so no ClassVar
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("f1", "help", "Help"),
        Binding("ctrl+s", "save", "Save"),
        Binding("ctrl+y", "copy_command", "Copy command"),
        Binding("ctrl+q", "quit", "Quit", priority=True),
        Binding("pageup", "scroll_report(-1)", "Scroll up", show=False),
        Binding("pagedown", "scroll_report(1)", "Scroll down", show=False),
    ]

    typed: reactive[Typed] = reactive(Typed, init=False)
    result: reactive[Result | None] = reactive(None)
    error: reactive[PlanError | None] = reactive(None)
    stale: reactive[bool] = reactive(False)

    def __init__(self, session: Session) -> None:
        super().__init__()
        self.session = session
        self.saved_as = str(session.file or SAVE_AS)
        self.set_reactive(PlannerApp.typed, session.first)

    def compose(self) -> ComposeResult:
        with Container(id="panes"):
            with Vertical(id="left"):
                yield PlanForm(self.session.first)
                yield Mistake().data_bind(PlannerApp.error)
            with Vertical(id="right"):
                yield Headline().data_bind(PlannerApp.result, PlannerApp.stale)
                yield Report().data_bind(PlannerApp.result, PlannerApp.stale)
        yield Static(id="command", markup=False)
        yield Footer()

    def on_mount(self) -> None:
        self.watch_typed(self.typed)

    def on_plan_form_changed(self, event: PlanForm.Changed) -> None:
        """The form is the only one that changes the state."""
        self.typed = event.typed

    def watch_typed(self, typed: Typed) -> None:
        """Compute the plan at once: it takes about as long as drawing it, so no thread and no delay."""
        try:
            self.result, self.error = result_of(typed, self.session), None
        except PlanError as error:
            self.error = error
        self.stale = self.error is not None
        form = self.query_one(PlanForm)
        form.mark(frozenset() if self.error is None else fields_named(self.error, typed))
        if self.result is not None:
            form.show_in_effect(in_effect(self.result.plan))
        self.query_one("#command", Static).update(f"$ {command_of(typed, self.session)}")

    def get_system_commands(self, screen: Screen[object]) -> Iterable[SystemCommand]:
        """The palette's entries: ours, then the usual ones."""
        yield SystemCommand("Save as run.toml", "Write the configuration of this plan", self.action_save)
        yield SystemCommand("Copy the command", "gptplan estimate with the same fields", self.action_copy_command)
        yield SystemCommand("Help for this field", "What may be typed, signs and keys", self.action_help)
        yield from super().get_system_commands(screen)

    def action_save(self) -> None:
        """Save what is shown; refused while the form says something else than the result."""
        if self.result is None or self.error is not None:
            self.notify("mend the field marked ✗ first", title="✗ not saved", severity="error")
            return
        self.push_screen(SaveScreen(self.result.plan.config, self.saved_as), self._saved)

    def _saved(self, path: Path | None) -> None:
        if path is not None:
            self.saved_as = str(path)
            self.notify(f"train it with: gptplan run {path} --out RUN_DIR", title=f"✓ wrote {path}", markup=False)

    def action_copy_command(self) -> None:
        """Copy the command through the terminal (OSC 52)."""
        command = command_of(self.typed, self.session)
        self.copy_to_clipboard(command)
        self.notify(command, title="✓ handed to the terminal's clipboard", markup=False)

    def action_help(self) -> None:
        """Help for the field that has the focus."""
        name = self.focused.id if self.focused is not None else None
        self.push_screen(HelpScreen(next((f for f in main_fields() if f.name == name), None)))

    def action_scroll_report(self, direction: int) -> None:
        """Scroll the report without leaving the form."""
        report = self.query_one(Report)
        if direction < 0:
            report.scroll_page_up()
        else:
            report.scroll_page_down()
