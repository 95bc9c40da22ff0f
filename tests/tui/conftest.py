"""A planner without a terminal: Textual's Pilot types and reads, on a day and a machine that never change."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from textual.pilot import Pilot
from textual.widgets import Input, Static

from planner.typed import Typed
from tui.app import PlannerApp
from tui.session import Session

Sitting = Callable[["User"], Awaitable[None]]


class User:
    """What a person does and sees."""

    def __init__(self, app: PlannerApp, pilot: Pilot[Any]) -> None:
        self.app, self.pilot = app, pilot

    async def type(self, field: str, text: str) -> None:
        """Put `text` in place of what stands in a field."""
        place = self.app.screen.query_one(f"#{field}", Input)
        place.focus()
        place.value = text
        await self.settle()

    async def press(self, *keys: str) -> None:
        await self.pilot.press(*keys)
        await self.settle()

    async def settle(self) -> None:
        await self.pilot.pause()
        await self.pilot.pause()

    def text(self, selector: str) -> str:
        """The words of a pane of the planner."""
        return str(self.app.screen_stack[0].query_one(selector, Static).render())

    def dialog(self, selector: str) -> str:
        """The words of a part of the screen on top."""
        return str(self.app.screen.query_one(selector, Static).render())


@pytest.fixture
def session() -> Session:
    return Session(as_of="2026-01-31", version="0.test")


@pytest.fixture
def sit(session: Session) -> Callable[..., None]:
    """`sit(play, size=…, session=…)` opens the planner and lets `play(user)` use it."""

    def run(play: Sitting, size: tuple[int, int] = (120, 40), session: Session = session) -> None:
        async def whole() -> None:
            app = PlannerApp(session)
            app.animation_level = "none"
            async with app.run_test(size=size) as pilot:
                user = User(app, pilot)
                await user.settle()
                await play(user)

        asyncio.run(whole())

    return run


@pytest.fixture
def small() -> Typed:
    return Typed(params="125M", tokens="10B")
