"""The terminal planner: a form, its live result in tabs, and the command that gives the same plan.

State goes one way: the form holds the flags, `LivePlan` computes their plan, and every pane shows `View`.
No widget computes. The actions are here.
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

from planner.config.options import OPTION
from planner.config.run import RunConfig
from planner.files import write_atomically
from planner.inputs.run_toml import write_config
from planner.report.after_saving import how_to_train
from tui.actions import ACTIONS, ONE_PANE, bindings
from tui.dialogs import is_dialog_open, open_dialog
from tui.files import is_served
from tui.fit import FIT_SEARCHES, FitResult, FitSearch, search_fit
from tui.kept_form import FormKeeper
from tui.kept_plan import KeptPlan
from tui.panes.pane import Pane
from tui.run_keys import RUN_KEYS
from tui.screens.help import HelpScreen
from tui.screens.jump import JumpScreen
from tui.screens.keys import KeysScreen
from tui.screens.open import OpenScreen
from tui.screens.save import SaveScreen
from tui.session import (
    FormState,
    Pinned,
    PlanResult,
    Session,
    command_of,
    config_result,
)
from tui.widgets.form import PlanForm
from tui.widgets.group import GroupTitle
from tui.widgets.results import Results
from tui.widgets.text import Text

SAVE_AS, EXPORT_AS = "run.toml", "plan.json"
TWO_PANES = 100  # columns


class PlannerApp(KeptPlan):
    """One screen: the form on the left, its results on the right; below 100 columns one of them at a time."""

    TITLE = "gptplan"
    CSS_PATH = "app.tcss"
    HORIZONTAL_BREAKPOINTS = [(0, "-one"), (TWO_PANES, "-two"), (160, "-roomy")]  # noqa: RUF012  an instance variable to Textual, so no ClassVar
    BINDINGS: ClassVar[list[BindingType]] = [
        *bindings(),
        Binding("pageup", "scroll_pane(-1)", "Scroll up", show=False),
        Binding("pagedown", "scroll_pane(1)", "Scroll down", show=False),
    ]

    def __init__(
        self, session: Session, painted: Callable[[], None] | None = None, keeper: FormKeeper | None = None
    ) -> None:
        """painted: called once, when the first screen has been drawn. keeper: keeps the form on the disk."""
        super().__init__(session, painted, keeper)
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
            if self._possible(action.method) and action.method != "quit":
                method = getattr(self, f"action_{action.method}")
                yield SystemCommand(action.title, f"{action.sentence} ({action.spelled()})", method)
        for fit in FIT_SEARCHES:
            yield SystemCommand(fit.title, fit.sentence, partial(self.find_fit, fit))
        for key, method, title, sentence in () if is_served() else RUN_KEYS:
            yield SystemCommand(f"Run: {title}", f"{sentence} ({key} on the tab Run)", partial(self.run_tab, method))
        yield from super().get_system_commands(screen)

    def action_change_theme(self) -> None:
        """The palette of themes, which is a dialog too."""
        if not is_dialog_open(self):
            super().action_change_theme()

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
                self.notify("the tab Run shows the state of the run", title="✗ not possible now", severity="warning")

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """No action of the planner while a dialog or the palette is open, and no palette over a dialog."""
        ours = {"command_palette", *(a.method for a in ACTIONS)} - {"quit"}
        return self._possible(action) and not (action in ours and is_dialog_open(self))

    def _possible(self, action: str) -> bool:
        """The other pane only where one pane is shown at a time; every other action always."""
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
        """Show the previous tab."""
        self.query_one(Tabs).action_previous_tab()

    def action_undo(self) -> None:
        """Undo the last change of the form."""
        self._go(self.history.undo(), "nothing to undo")

    def action_redo(self) -> None:
        """Redo the last undone change."""
        self._go(self.history.redo(), "nothing to redo")

    def _go(self, form_state: FormState | None, otherwise: str) -> None:
        if form_state is None:
            self.notify(otherwise, timeout=2)
            return
        self.query_one(PlanForm).restore(form_state.flags)
        self.form_state = form_state

    def action_pin(self) -> None:
        """Pin this plan, or unpin the pinned one."""
        if self.pinned is not None:
            self.pinned = None
            self.notify("the pinned plan is dropped", title="✓ unpinned", timeout=3)
        elif self._valid_result() is not None and self.form_state is not None and self.result is not None:
            self.pinned = Pinned(self.form_state, self.result)
            self.notify("change a field: Summary shows what differs, and why", title="✓ pinned", timeout=3)
        self.differences = None
        self.show_view()
        self.settle()

    def find_fit(self, fit: FitSearch) -> None:
        """Search a change of the plan that fits the GPU, and fill it in."""
        if self._valid_result() is not None and self.form_state is not None:
            self._find_fit(fit, self.form_state)

    @work(thread=True, exclusive=True, group="fit")
    def _find_fit(self, fit: FitSearch, form_state: FormState) -> None:
        found = search_fit(fit, form_state)
        if not get_current_worker().is_cancelled:
            self.call_from_thread(self._fit_found, form_state, found)

    def _fit_found(self, form_state: FormState, found: FitResult) -> None:
        if self.form_state is not form_state:
            self.notify("the form changed during the search: search again", timeout=3)
            return
        self.notify(found.message, title=found.title, markup=False, timeout=8)
        if found.flags is not None:
            self.query_one(PlanForm).restore(found.flags)
            self.form_state = FormState(self.session, found.flags)

    def _valid_result(self) -> PlanResult | None:
        """The result, if it is that of the form; else the user gets a message."""
        if self.result is None or self.error is not None:
            self.notify("fix the field marked ✗ first", title="✗ a field is wrong", severity="error")
            return None
        return self.result

    def action_save(self) -> None:
        """Save the config shown; refused while a field is wrong."""
        result = self._valid_result()
        if result is not None:
            config = result.plan.config

            def write(path: Path, overwrite: bool) -> None:
                write_config(path, config, overwrite=overwrite)

            open_dialog(self, SaveScreen("the configuration", self.saved_as, write), partial(self._saved, config))

    def _saved(self, config: RunConfig, path: Path | None) -> None:
        if path is not None:
            self.saved_as = str(path)
            self.notify(how_to_train(config, path), title=f"✓ wrote {path}", markup=False)

    def action_export(self) -> None:
        """Write the plan itself, with the simulated allocator, as JSON or Markdown."""
        result = self._valid_result()
        if result is not None:
            self._export(result, command_of(self.flags, self.session))

    @work(thread=True, exclusive=True, group="export")
    def _export(self, result: PlanResult, command: str) -> None:
        from tui.export import exported  # the report: 10 ms, not before the first paint

        whole = result if result.settled else config_result(result.plan.config, replay=True)
        if not get_current_worker().is_cancelled:
            self.call_from_thread(self._ask_where_to_export, lambda path: exported(whole, command, path))

    def _ask_where_to_export(self, text_of: Callable[[Path], str]) -> None:
        def write(path: Path, overwrite: bool) -> None:
            write_atomically(path, text_of(path), overwrite=overwrite)

        open_dialog(self, SaveScreen("this plan (.json or .md)", EXPORT_AS, write), self._exported)

    def _exported(self, path: Path | None) -> None:
        if path is not None:
            self.notify("the same by command: gptplan estimate --json", title=f"✓ wrote {path}", markup=False)

    def action_open(self) -> None:
        """Ask for another run.toml."""
        open_dialog(self, OpenScreen(self.session), self._opened)

    def _opened(self, session: Session | None) -> None:
        if session is not None:
            self.query_one(PlanForm).restore(session.first)
            self.form_state = FormState(session, session.first)
            self.saved_as = str(session.file)

    def action_copy_command(self) -> None:
        """Copy the command through the terminal (OSC 52)."""
        command = command_of(self.flags, self.session)
        self.copy_to_clipboard(command)
        self.notify(command, title="✓ sent to the terminal's clipboard", markup=False)

    def action_help(self) -> None:
        """Help for the field that has the focus."""
        name = self.focused.id if self.focused is not None else None
        pane = self.query_one(Results).pane
        inside = pane is not None and self.focused is not None and pane in self.focused.ancestors_with_self
        open_dialog(
            self, HelpScreen(name if name in OPTION else None, pane.HELP if inside and pane is not None else "")
        )

    def action_keys(self) -> None:
        """The list of all keys."""
        open_dialog(self, KeysScreen())

    def action_jump(self) -> None:
        """Letters over everything visible."""
        open_dialog(self, JumpScreen(self.targets()), self._jumped)

    def targets(self) -> list[Widget]:
        """The visible targets of a jump: tabs, inputs and lists of a pane, groups and fields."""
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
        """Scroll the current tab without leaving the form."""
        pane = self.query_one(Results).pane
        if pane is not None and direction < 0:
            pane.scroll_page_up()
        elif pane is not None:
            pane.scroll_page_down()
