"""What outlasts the planner's process: its form on the disk, whatever ends the process; what a crash leaves.

Ctrl+Q is the only clean end. After a crash, a signal or a lost connection the form is offered at the next start.
"""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import Callable

from textual import work
from textual.css.query import NoMatches
from textual.worker import WorkerFailed

from planner.errors import FileError
from tui.dialogs import is_dialog_open, open_dialog
from tui.kept_form import FormKeeper, KeptForm, left_forms
from tui.live_plan import LivePlan
from tui.screens.offer import OfferScreen
from tui.session import FormState, Session
from tui.widgets.form import PlanForm

SIGNALS = tuple(getattr(signal, name) for name in ("SIGHUP", "SIGTERM", "SIGINT") if hasattr(signal, name))
_TIDY_SECONDS = 5.0  # s for a clean end after a signal: the terminal may be gone, and writing to it wait for ever
_PARENT_SECONDS = 2.0  # s between two looks whether the server of a browser's planner lives


class KeptPlan(LivePlan):
    """keeper: keeps the form; None in pictures and tests. crash: what ended the planner, if it was a fault."""

    def __init__(
        self, session: Session, painted: Callable[[], None] | None = None, keeper: FormKeeper | None = None
    ) -> None:
        super().__init__(session, painted)
        self.crash: Exception | None = None
        self.keeper = keeper
        self._at_start = self.form_state
        if keeper is not None:
            keeper.refused = self._from_its_thread

    def on_mount(self) -> None:
        if not self.is_headless:
            self._end_at_signals()
        if self.is_web:
            server = os.getppid()
            self.set_interval(_PARENT_SECONDS, lambda: self.exit() if os.getppid() != server else None)
        if self.keeper is not None:
            self.call_after_refresh(self._look_for_forms)

    def watch_form_state(self, form_state: FormState) -> None:
        """A new state of the form: it is kept, unless it is the one at the start."""
        super().watch_form_state(form_state)
        if self.keeper is not None:
            self.keeper.keep(None if form_state == self._at_start else form_state)

    def _from_its_thread(self, message: str) -> None:
        self.call_later(self._not_kept, message)

    def _not_kept(self, message: str) -> None:
        self.notify(message, title="✗ the form is not kept on the disk", severity="warning", markup=False, timeout=12)

    async def action_quit(self) -> None:
        """Leave the planner: a clean end, after which nothing is kept."""
        if self.keeper is not None:
            self.keeper.end()
        await super().action_quit()

    @work(thread=True)
    def _look_for_forms(self) -> None:
        try:
            forms, messages = left_forms()
        except FileError as error:
            forms, messages = [], [error.message()]
        if forms or messages:
            self.call_from_thread(self._offer, forms, messages)

    def _offer(self, forms: list[KeptForm], messages: list[str]) -> None:
        for message in messages:
            self.notify(message, title="✗ a kept form", severity="warning", markup=False, timeout=12)
        if forms and is_dialog_open(self):
            self.set_timer(0.5, lambda: self._offer(forms, []))
        elif forms:
            open_dialog(self, OfferScreen(forms[0], self.session), lambda answer: self._answered(answer, forms))

    def _answered(self, answer: FormState | bool | None, forms: list[KeptForm]) -> None:
        first, *others = forms
        if answer is False:
            first.remove()
            self._offer(others, [])
            return
        for form in others:
            form.leave()
        if isinstance(answer, FormState):
            self.query_one(PlanForm).restore(answer.flags)
            self.form_state = answer
            self._replace_kept(first)
        else:
            first.leave()

    @work(thread=True, group="kept")
    def _replace_kept(self, taken: KeptForm) -> None:
        """The form taken is this process's now; the old file goes only when there is a new one."""
        assert self.keeper is not None
        if self.keeper.flush():
            taken.remove()
        else:
            taken.leave()

    def _end_at_signals(self) -> None:
        """End with 128 + number, the form kept and the terminal restored. An ignored signal stays ignored."""
        loop = asyncio.get_running_loop()
        for number in SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:
                loop.add_signal_handler(number, self._end_by, number)

    def _end_by(self, number: int) -> None:
        last = threading.Timer(_TIDY_SECONDS, os._exit, [128 + number])
        last.daemon = True
        last.start()
        if self.keeper is not None:
            self.keeper.flush()
        self.exit(return_code=128 + number)

    def _handle_exception(self, error: Exception) -> None:
        """Keep the form and end with 1; what Textual would print, with every local variable, is a file's matter."""
        if self._exit or _is_of_a_closed_palette(error):
            return  # a key that came after the last: its screen is gone
        self.crash = self.crash or error
        if self.keeper is not None:
            self.keeper.flush()
        super()._handle_exception(error)

    def _print_error_renderables(self) -> None:
        if self.crash is None:
            super()._print_error_renderables()


def _is_of_a_closed_palette(error: Exception) -> bool:
    """Whether Textual's palette was closed while it searched: its search then misses the list (Textual 8.2.8)."""
    cause = error.error if isinstance(error, WorkerFailed) else None
    return isinstance(cause, NoMatches) and "CommandPalette" in str(cause)
