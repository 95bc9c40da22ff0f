"""The state of the planner and what follows from it: the form's texts, their plan, the pinned one, the differences.

The plan by rule is made at once; the simulated allocator, what fits and the comparison in threads, once the keys rest.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from textual import work
from textual.app import App
from textual.reactive import var
from textual.timer import Timer
from textual.worker import get_current_worker

from planner.analysis.difference import Difference
from planner.errors import PlanError
from planner.inputs.effective import effective
from planner.inputs.flags import Flags
from tui.history import History
from tui.session import (
    Pinned,
    Result,
    Seat,
    Session,
    View,
    command_of,
    differences_of,
    fields_named,
    planned,
    result_of,
)
from tui.widgets.form import PlanForm
from tui.widgets.results import Results
from tui.widgets.text import Text

REST = 0.02  # s without a key before slow work begins: a key that is held down comes again before that
SEARCH_REST = 0.2  # s more without a key before the search for what fits, which takes up to 2 s of the processor


class LivePlan(App[None]):
    """`seat` is what stands in the form; a change of it changes everything else. Whoever draws it composes the form,
    the results and the line of the command."""

    seat: var[Seat | None] = var(None, init=False)
    result: var[Result | None] = var(None)
    error: var[PlanError | None] = var(None)
    stale: var[bool] = var(False)
    pinned: var[Pinned | None] = var(None)

    def __init__(self, session: Session, painted: Callable[[], None] | None = None) -> None:
        """painted: called once, when the first screen has been drawn."""
        super().__init__()
        self._painted = painted
        first = Seat(session, session.first)
        self.set_reactive(LivePlan.seat, first)
        self.history = History(first)
        self.differences: tuple[Difference, ...] | None = None
        self._rest: Timer | None = None

    @property
    def session(self) -> Session:
        """The file and the machine."""
        assert self.seat is not None
        return self.seat.session

    @property
    def flags(self) -> Flags:
        """What stands in the form."""
        assert self.seat is not None
        return self.seat.flags

    @property
    def settled(self) -> bool:
        """Whether nothing is on its way: every number shown is the last one."""
        compared = self.pinned is None or self.differences is not None
        return self.stale or (self.result is not None and self.result.settled and compared)

    def on_mount(self) -> None:
        self._compute()
        self.query("#form Input").first().focus()
        if self._painted is not None:
            self.call_after_refresh(self._painted)

    def on_plan_form_changed(self, event: PlanForm.Changed) -> None:
        """The form is the one that changes the state; undo and opening a file are the others."""
        self.seat = Seat(self.session, event.flags)

    def on_descendant_focus(self) -> None:
        self.history.close()  # another field: another step to undo

    def watch_seat(self, seat: Seat) -> None:
        """A new state of the form."""
        self.history.record(seat)
        self._compute()

    def _compute(self) -> None:
        """The plan at once, by rule; the replay and the comparison when the keys rest."""
        try:
            self.result, self.error = result_of(self.flags, self.session, replay=False), None
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
        if self._rest is not None:
            self._rest.stop()
        if not self.stale:
            self._rest = self.set_timer(REST, self.settle)

    def show_view(self) -> None:
        """Hand the results what is new."""
        if self.result is not None:
            command = command_of(self.flags, self.session)
            view = View(self.result, self.stale, command, self.pinned, self.differences)
            self.query_one(Results).view = view

    def settle(self) -> None:
        """Begin what takes longer than a key may."""
        if self.result is not None and not self.result.settled:
            self._replay(self.result)
        if self.pinned is not None and self.seat is not None:
            self._compare(self.pinned.seat, self.seat)

    @work(thread=True, exclusive=True, group="replay")
    def _replay(self, quick: Result) -> None:
        if not all(f.remedy for f in quick.findings):
            time.sleep(SEARCH_REST)
            if get_current_worker().is_cancelled:
                return
        found = planned(quick.plan.config, replay=True)
        if not get_current_worker().is_cancelled:
            self.call_from_thread(self._replayed, quick, found)

    def _replayed(self, quick: Result, found: Result) -> None:
        if self.result is quick:  # else something else was typed meanwhile
            self.result = found
            self.show_view()

    @work(thread=True, exclusive=True, group="compare")
    def _compare(self, before: Seat, after: Seat) -> None:
        found = differences_of(before, after)
        if not get_current_worker().is_cancelled:
            self.call_from_thread(self._compared, before, after, found)

    def _compared(self, before: Seat, after: Seat, found: tuple[Difference, ...]) -> None:
        if self.pinned is not None and self.pinned.seat is before and self.seat is after:
            self.differences = found
            self.show_view()
