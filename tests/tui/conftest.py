"""A planner without a terminal: Textual's Pilot types and reads, with a fixed date and machine.

Half of a test's seconds went into drawing screens that nobody looked at: here the planner draws when a test looks
(`seen`), when a tab is opened, and when the test ends. Layout, styles and messages are those of a real terminal.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from textual._compositor import Compositor, visible_screen_stack
from textual.pilot import Pilot
from textual.widgets import Input, Static

from planner.config.options import OPTION
from planner.inputs.flags import Flags
from tui.app import PlannerApp
from tui.session import Session
from tui.widgets.form import PlanForm
from tui.widgets.results import Results
from tui.widgets.row import FieldInput

Scenario = Callable[["User"], Awaitable[None]]


class User:
    """Types, presses keys and reads the screen."""

    def __init__(self, app: PlannerApp, pilot: Pilot[Any]) -> None:
        self.app, self.pilot = app, pilot

    async def type(self, field: str, text: str) -> None:
        """Replace the text of a field."""
        if len(self.app.screen_stack) == 1 and field in OPTION:
            self.app.query_one(PlanForm).open_group_of(field)
            await self.pilot.pause()
        place = self.app.screen.query_one(f"#{field}", Input)
        place.focus()
        place.value = text
        await self.settle()

    async def press(self, *keys: str) -> None:
        await self.pilot.press(*keys)
        await self.settle()

    async def press_only(self, *keys: str) -> None:
        """Press, and do not wait for the numbers."""
        await self.pilot.press(*keys)

    async def settle(self) -> None:
        """Wait until every message is handled and every number is final."""
        quiet = 0
        for _ in range(12_000):
            if not (self._form_is_read() and self._calculated()):
                quiet = 0
                await asyncio.sleep(0.005)  # a pause of the pilot would ask each widget, every time
            elif quiet == 4:  # turns of the loop: a message that was answered may have caused another
                return
            else:
                quiet += 1
                await self.pilot.pause(0.005)
        raise AssertionError("the planner does not finish computing")

    async def until(self, condition: Callable[[], bool], every: float = 0.002, turns: int = 20_000) -> None:
        """Wait for a condition without asking the widgets: a pause of the pilot sends each of them a message."""
        for _ in range(turns):
            if condition():
                return
            await asyncio.sleep(every)
        raise AssertionError(self.seen())

    def _calculated(self) -> bool:
        working = any(not worker.is_finished for worker in self.app.workers)
        return not working and (self.app.settled or self.app.result is None)

    def _form_is_read(self) -> bool:
        """Whether the app has the text of every field."""
        fields = self.app.screen_stack[0].query(FieldInput)
        return all(field.value.strip() == (getattr(self.app.flags, field.id) or "") for field in fields)

    async def open(self, tab: str) -> None:
        """Show a tab."""
        self.app.query_one(Results).open(tab)
        await self.settle()
        self.seen()

    def seen(self) -> str:
        """What the terminal shows, line by line. Raises what a widget raises that cannot be drawn."""
        visible_screen_stack.set(self.app._background_screens)
        return "\n".join("".join(s.text for s in strip) for strip in self.app.screen._compositor.render_strips())

    def text(self, selector: str) -> str:
        """The text of a widget of the main screen."""
        return str(self.app.screen_stack[0].query_one(selector, Static).render())

    def dialog(self, selector: str) -> str:
        """The text of a widget of the top screen."""
        return str(self.app.screen.query_one(selector, Static).render())


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs that a test watches, and forms, are not remembered for the person who tests."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture
def session() -> Session:
    return Session(as_of="2026-01-31", version="0.test")


def not_drawn(compositor: Compositor, full: bool = False, screen_stack: object = None, simplify: bool = False) -> None:
    """No update of the terminal: for Textual, nothing has changed on it."""
    compositor._dirty_regions.clear()


@pytest.fixture
def planner_app(session: Session, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """`planner_app(play, size=…, session=…)` opens the planner and lets `play(user)` use it.

    draws: every change is drawn, as in a terminal.
    """

    def run(play: Scenario, size: tuple[int, int] = (120, 40), session: Session = session, draws: bool = False) -> None:
        if not draws:
            monkeypatch.setattr(Compositor, "render_update", not_drawn)

        async def whole() -> None:
            app = PlannerApp(session)
            app.animation_level = "none"
            async with app.run_test(size=size) as pilot:
                user = User(app, pilot)
                await user.settle()
                await play(user)
                if app._running and not app._exit:
                    user.seen()

        asyncio.run(whole())

    return run


@pytest.fixture
def small() -> Flags:
    return Flags(params="125M", tokens="10B")
