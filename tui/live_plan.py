"""The state of the planner and its results: the flags in the form, their plan, the pinned plan, the differences.

The plan by rule is computed at each key; the simulated allocator, what fits and the comparison after the last key,
in threads.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from textual import events, work
from textual.app import App
from textual.notifications import SeverityLevel
from textual.reactive import var
from textual.timer import Timer
from textual.worker import get_current_worker

from planner.analysis.difference import Difference
from planner.errors import PlanError
from planner.inputs.effective import effective
from planner.inputs.flags import Flags
from planner.printable import message_text, printable
from tui.history import History
from tui.session import (
    FormState,
    Pinned,
    PlanResult,
    Session,
    View,
    command_of,
    config_result,
    differences_of,
    fields_named,
    flags_result,
)
from tui.widgets.form import PlanForm
from tui.widgets.results import Results
from tui.widgets.text import Text

LONGEST_PASTE = 4096  # characters: the longest path; a field with a megabyte takes seconds for every key
IDLE_SECONDS = 0.02  # s without a key before slow work starts; a key that is held down repeats faster
SEARCH_IDLE_SECONDS = 0.2  # s more without a key before the search for what fits, which takes up to 2 s of CPU


class LivePlan(App[None]):
    """A change of `form_state` changes everything else. The subclass composes the form, the results and the line with
    the command."""

    form_state: var[FormState | None] = var(None, init=False)
    result: var[PlanResult | None] = var(None)
    error: var[PlanError | None] = var(None)
    stale: var[bool] = var(False)
    pinned: var[Pinned | None] = var(None)

    def __init__(self, session: Session, painted: Callable[[], None] | None = None) -> None:
        """painted: called once, when the first screen has been drawn."""
        super().__init__()
        self._painted = painted
        first = FormState(session, session.first)
        self.set_reactive(LivePlan.form_state, first)
        self.history = History(first)
        self.differences: tuple[Difference, ...] | None = None
        self._idle_timer: Timer | None = None

    @property
    def session(self) -> Session:
        """The file and the machine."""
        assert self.form_state is not None
        return self.form_state.session

    @property
    def flags(self) -> Flags:
        """The flags in the form."""
        assert self.form_state is not None
        return self.form_state.flags

    @property
    def settled(self) -> bool:
        """Whether nothing is being computed: every number shown is final."""
        compared = self.pinned is None or self.differences is not None
        return self.stale or (self.result is not None and self.result.settled and compared)

    async def on_event(self, event: events.Event) -> None:
        """Every event of the terminal. A paste is cleaned first: the screen would give its control characters on."""
        if isinstance(event, events.Paste):
            if len(event.text) > LONGEST_PASTE:
                most = f"a paste of {len(event.text):,} characters is left out: a field takes {LONGEST_PASTE:,}"
                self.notify(most, title="✗ too long", severity="warning")
                return
            event.text = printable(event.text)
        await super().on_event(event)

    def notify(
        self,
        message: str,
        *,
        title: str = "",
        severity: SeverityLevel = "information",
        timeout: float | None = None,
        markup: bool = True,
    ) -> None:
        """Show a notification, without what a terminal would execute: it may quote a file or a name."""
        message, title = message_text(message), message_text(title)
        super().notify(message, title=title, severity=severity, timeout=timeout, markup=markup)

    def on_mount(self) -> None:
        self._compute()
        self.query("#form Input").first().focus()
        if self._painted is not None:
            self.call_after_refresh(self._painted)

    def on_plan_form_changed(self, event: PlanForm.Changed) -> None:
        """The form changed: a new state. Undo and opening a file are the other sources of one."""
        self.form_state = FormState(self.session, event.flags)

    def on_descendant_focus(self) -> None:
        self.history.close()  # another field: another step to undo

    def watch_form_state(self, form_state: FormState) -> None:
        """A new state of the form."""
        self.history.record(form_state)
        self._compute()

    def _compute(self) -> None:
        """Compute the plan by rule now; the simulation and the comparison after the last key."""
        try:
            self.result, self.error = flags_result(self.flags, self.session, replay=False), None
        except PlanError as error:
            self.error = error
        self.stale = self.error is not None
        if not self.stale:
            self.differences = None  # those of the last valid result stay with it
        form = self.query_one(PlanForm)
        form.mark(self.error, frozenset() if self.error is None else fields_named(self.error, self.flags))
        if self.result is not None and not self.stale:
            form.show_effective(self.flags, effective(self.result.plan))
        self.query_one("#command", Text).put(f"$ {command_of(self.flags, self.session)}", fixed=True)
        self.show_view()
        if self._idle_timer is not None:
            self._idle_timer.stop()
        if not self.stale:
            self._idle_timer = self.set_timer(IDLE_SECONDS, self.settle)

    def show_view(self) -> None:
        """Give the results the new view."""
        if self.result is not None:
            command = command_of(self.flags, self.session)
            view = View(self.result, self.stale, command, self.pinned, self.differences)
            self.query_one(Results).view = view

    def settle(self) -> None:
        """Start what takes longer than one key."""
        if self.result is not None and not self.result.settled:
            self._replay(self.result)
        if self.pinned is not None and self.form_state is not None:
            self._compare(self.pinned.form_state, self.form_state)

    @work(thread=True, exclusive=True, group="replay")
    def _replay(self, quick: PlanResult) -> None:
        if not all(f.remedy for f in quick.findings):
            time.sleep(SEARCH_IDLE_SECONDS)
            if get_current_worker().is_cancelled:
                return
        found = config_result(quick.plan.config, replay=True)
        if not get_current_worker().is_cancelled:
            self.call_from_thread(self._replayed, quick, found)

    def _replayed(self, quick: PlanResult, found: PlanResult) -> None:
        if self.result is quick:  # else the form has changed since
            self.result = found
            self.show_view()

    @work(thread=True, exclusive=True, group="compare")
    def _compare(self, before: FormState, after: FormState) -> None:
        found = differences_of(before, after)
        if not get_current_worker().is_cancelled:
            self.call_from_thread(self._compared, before, after, found)

    def _compared(self, before: FormState, after: FormState, found: tuple[Difference, ...]) -> None:
        if self.pinned is not None and self.pinned.form_state is before and self.form_state is after:
            self.differences = found
            self.show_view()
