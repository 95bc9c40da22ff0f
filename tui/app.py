"""The terminal planner: a form, its live result in tabs, and the command that says the same.

State goes one way: the form says what was typed, `LivePlan` asks the library, and every pane shows `View`.
No widget computes. Here is what a person can do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import ClassVar

from textual import work
from textual.app import ComposeResult, SystemCommand
from textual.binding import Binding, BindingType
from textual.containers import Container
from textual.screen import Screen
from textual.widget import Widget
from textual.widgets import Footer, Tab, Tabs
from textual.worker import get_current_worker

from planner.inputs.fields import FLAGS
from planner.inputs.run_toml import config_text
from tui.actions import ACTIONS, ONE_PANE, bindings
from tui.files import is_served
from tui.fit import FITS, Fit, Found, found_fit
from tui.live_plan import LivePlan
from tui.panes.pane import Pane
from tui.run_keys import RUN_KEYS
from tui.screens.help import HelpScreen
from tui.screens.jump import JumpScreen
from tui.screens.keys import KeysScreen
from tui.screens.open import OpenScreen
from tui.screens.save import SaveScreen
from tui.session import (
    Pinned,
    Result,
    Seat,
    Session,
    command_of,
    planned,
)
from tui.widgets.form import PlanForm
from tui.widgets.group import GroupTitle
from tui.widgets.results import Results
from tui.widgets.text import Text

SAVE_AS, EXPORT_AS = "run.toml", "plan.json"
TWO_PANES = 100  # columns


class PlannerApp(LivePlan):
    """One screen: what was typed on the left, what follows from it on the right; below 100 columns one of them."""

    TITLE = "gptplan"
    CSS_PATH = "app.tcss"
    HORIZONTAL_BREAKPOINTS = [(0, "-one"), (TWO_PANES, "-two"), (160, "-roomy")]  # noqa: RUF012  an instance variable to Textual, so no ClassVar
    BINDINGS: ClassVar[list[BindingType]] = [
        *bindings(),
        Binding("pageup", "scroll_pane(-1)", "Scroll up", show=False),
        Binding("pagedown", "scroll_pane(1)", "Scroll down", show=False),
    ]

    def __init__(self, session: Session, painted: Callable[[], None] | None = None) -> None:
        """painted: called once, when the first screen has been drawn."""
        super().__init__(session, painted)
        self.saved_as = str(session.file or SAVE_AS)
        self._results_in_front = False

    def compose(self) -> ComposeResult:
        with Container(id="panes"):
            yield PlanForm(self.session.first)
            yield Results(id="results")
        yield Text(id="command")
        yield Footer(compact=True, show_command_palette=False)

    def get_system_commands(self, screen: Screen[object]) -> Iterable[SystemCommand]:
        """The palette's entries: every action, every tab, then Textual's own (themes among them)."""
        for action in ACTIONS:
            if self.check_action(action.method, ()) and action.method != "quit":
                method = getattr(self, f"action_{action.method}")
                yield SystemCommand(action.title, f"{action.sentence} ({action.spelled()})", method)
        for fit in FITS:
            yield SystemCommand(fit.title, fit.sentence, partial(self.find_fit, fit))
        for key, method, title, sentence in () if is_served() else RUN_KEYS:
            yield SystemCommand(f"Run: {title}", f"{sentence} ({key} on the tab Run)", partial(self.run_tab, method))
        yield from super().get_system_commands(screen)

    async def run_tab(self, method: str) -> None:
        """Go to the tab Run and do one of its actions."""
        await self.query_one(Results).show("run")
        if self.size.width < TWO_PANES:
            self._in_front(True)
        pane = self.query_one(Results).pane
        if pane is not None:
            pane.focus()
            if pane.check_action(method, ()):
                await pane.run_action(method)
            else:
                self.notify("the tab Run says where the run stands", title="✗ not possible now", severity="warning")

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Nothing of the planner while a dialog is open; the other pane only where one pane is seen at a time."""
        ours = {a.method for a in ACTIONS} - {"quit"}
        if action in ours and len(self.screen_stack) > 1 and self.screen.is_modal:
            return type(self.screen).__name__ == "CommandPalette"
        if action in ONE_PANE:
            return self.size.width < TWO_PANES and (action == "show_results") != self._results_in_front
        return True

    def on_resize(self) -> None:
        self.refresh_bindings()

    def action_show_results(self) -> None:
        """Put the results in front of the form."""
        self._in_front(True)
        self.query_one(Tabs).focus()

    def action_show_form(self) -> None:
        """Put the form in front of the results."""
        self._in_front(False)
        self.query("#form Input").first().focus()

    def _in_front(self, results: bool) -> None:
        self._results_in_front = results
        self.query_one("#panes").set_class(results, "-results")
        self.refresh_bindings()

    def action_next_tab(self) -> None:
        """Show the next tab."""
        self.query_one(Tabs).action_next_tab()

    def action_previous_tab(self) -> None:
        """Show the tab before."""
        self.query_one(Tabs).action_previous_tab()

    def action_undo(self) -> None:
        """Take back the last change of the form."""
        self._go(self.history.undo(), "nothing to undo")

    def action_redo(self) -> None:
        """Make it again."""
        self._go(self.history.redo(), "nothing to redo")

    def _go(self, seat: Seat | None, otherwise: str) -> None:
        if seat is None:
            self.notify(otherwise, timeout=2)
            return
        self.query_one(PlanForm).restore(seat.flags)
        self.seat = seat

    def action_pin(self) -> None:
        """Put this plan aside, or let the one go that was."""
        if self.pinned is not None:
            self.pinned = None
            self.notify("the plan that was put aside is let go", title="✓ unpinned", timeout=3)
        elif self._whole() is not None and self.seat is not None and self.result is not None:
            self.pinned = Pinned(self.seat, self.result)
            self.notify("change something: Summary says what moves, and why", title="✓ pinned", timeout=3)
        self.differences = None
        self.show_view()
        self.settle()

    def find_fit(self, fit: Fit) -> None:
        """Look for a change of the plan that fits the card, and type it."""
        if self._whole() is not None and self.seat is not None:
            self._find_fit(fit, self.seat)

    @work(thread=True, exclusive=True, group="fit")
    def _find_fit(self, fit: Fit, seat: Seat) -> None:
        found = found_fit(fit, seat)
        if not get_current_worker().is_cancelled:
            self.call_from_thread(self._found_fit, seat, found)

    def _found_fit(self, seat: Seat, found: Found) -> None:
        if self.seat is not seat:
            self.notify("the form has changed meanwhile: ask again", timeout=3)
            return
        self.notify(found.message, title=found.title, markup=False, timeout=8)
        if found.flags is not None:
            self.query_one(PlanForm).restore(found.flags)
            self.seat = Seat(self.session, found.flags)

    def _whole(self) -> Result | None:
        """What is shown, if the form says the same; else the user is told."""
        if self.result is None or self.error is not None:
            self.notify("mend the field marked ✗ first", title="✗ not while a field is wrong", severity="error")
            return None
        return self.result

    def action_save(self) -> None:
        """Save what is shown; refused while the form says something else than the result."""
        result = self._whole()
        if result is not None:
            config = result.plan.config
            self.push_screen(SaveScreen("the configuration", self.saved_as, lambda _: config_text(config)), self._saved)

    def _saved(self, path: Path | None) -> None:
        if path is not None:
            self.saved_as = str(path)
            self.notify(f"train it with: gptplan run {path} --out RUN_DIR", title=f"✓ wrote {path}", markup=False)

    def action_export(self) -> None:
        """Write the plan itself, with the replayed numbers, as JSON or Markdown."""
        result = self._whole()
        if result is not None:
            self._export(result, command_of(self.flags, self.session))

    @work(thread=True, exclusive=True, group="export")
    def _export(self, result: Result, command: str) -> None:
        from tui.export import exported  # the report: 10 ms, not before the first paint

        whole = result if result.settled else planned(result.plan.config, replay=True)
        if not get_current_worker().is_cancelled:
            self.call_from_thread(self._ask_where_to_export, lambda path: exported(whole, command, path))

    def _ask_where_to_export(self, text_of: Callable[[Path], str]) -> None:
        self.push_screen(SaveScreen("this plan (.json or .md)", EXPORT_AS, text_of), self._exported)

    def _exported(self, path: Path | None) -> None:
        if path is not None:
            self.notify("the same by command: gptplan estimate --json", title=f"✓ wrote {path}", markup=False)

    def action_open(self) -> None:
        """Ask for another run.toml."""
        self.push_screen(OpenScreen(self.session), self._opened)

    def _opened(self, session: Session | None) -> None:
        if session is not None:
            self.query_one(PlanForm).restore(session.first)
            self.seat = Seat(session, session.first)
            self.saved_as = str(session.file)

    def action_copy_command(self) -> None:
        """Copy the command through the terminal (OSC 52)."""
        command = command_of(self.flags, self.session)
        self.copy_to_clipboard(command)
        self.notify(command, title="✓ handed to the terminal's clipboard", markup=False)

    def action_help(self) -> None:
        """Help for the field that has the focus."""
        name = self.focused.id if self.focused is not None else None
        pane = self.query_one(Results).pane
        inside = pane is not None and self.focused is not None and pane in self.focused.ancestors_with_self
        self.push_screen(HelpScreen(name if name in FLAGS else None, pane.HELP if inside and pane is not None else ""))

    def action_keys(self) -> None:
        """The list of all keys."""
        self.push_screen(KeysScreen())

    def action_jump(self) -> None:
        """Letters over whatever is in sight."""
        self.push_screen(JumpScreen(self.targets()), self._jumped)

    def targets(self) -> list[Widget]:
        """What can be gone to: the tabs, what a pane holds, groups and fields, as far as they are in sight."""
        kinds = (*self.query(Tab), *self.query("#pane Input, #pane OptionList"), *self.query(Pane),
                 *self.query(GroupTitle), *self.query("#form Input"))  # fmt: skip
        seen = self.screen.region
        return [w for w in kinds if w.region.area and seen.contains_region(w.region.intersection(w.container_viewport))
                and w.container_viewport.overlaps(w.region) and (w.can_focus or isinstance(w, Tab))]  # fmt: skip

    def _jumped(self, widget: Widget | None) -> None:
        if isinstance(widget, Tab) and widget.id is not None:
            self.query_one(Results).open(widget.id.removeprefix("tab-"))
        elif widget is not None:
            widget.focus()

    def action_scroll_pane(self, direction: int) -> None:
        """Scroll the tab on top without leaving the form."""
        pane = self.query_one(Results).pane
        if pane is not None and direction < 0:
            pane.scroll_page_up()
        elif pane is not None:
            pane.scroll_page_down()
