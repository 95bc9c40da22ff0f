"""Random keys, pastes and sizes, faster than they are handled: nothing crashes, no dialog is over another."""

from __future__ import annotations

import asyncio
import sys
from contextlib import chdir
from tempfile import TemporaryDirectory
from unittest.mock import patch

import pytest
from hypothesis import Phase, example, given, settings
from hypothesis import strategies as st
from textual._wait import wait_for_idle
from textual.css.query import NoMatches
from textual.events import Event, Key, Paste, Resize
from textual.geometry import Size
from textual.worker import WorkerFailed

from tests.examples import examples
from tests.soak import one_in
from tui.actions import ACTIONS
from tui.app import PlannerApp
from tui.run_keys import RUN_KEYS
from tui.session import Session

DIALOGS = ("ctrl+p", "ctrl+o", "f1", "ctrl+s", "ctrl+e", "ctrl+l", "question_mark", "escape", "enter")
KEYS = (
    *(key for action in ACTIONS for key in action.keys.split(",") if action.method != "quit"),
    *(key for key, *_ in RUN_KEYS),
    *("z", "1", "9", "x", "k", "-", ".", "é", "tab", "shift+tab", "up", "down", "left", "right", "home", "end"),
    *("pageup", "pagedown", "space", "backspace", "delete", "ctrl+a", "ctrl+c", "ctrl+k", "ctrl+u", "ctrl+v", "ctrl+w"),
)
PASTES = ("", "7B", "h100-80gb", "--params 1e400", "\x1b[31mred\x07\x00", "[b]🦙[/b" * 40, "a\nb", "9" * 5000)
SIZES = ((1, 1), (60, 20), (99, 3), (120, 40), (300, 80))
WAIT = ""  # until everything before is handled
STEPS = st.one_of(
    st.sampled_from(DIALOGS),
    st.sampled_from(KEYS),
    st.sampled_from(["f8", "f8 enter", "down enter", "f2 f7 f7 n enter", WAIT]),
    st.sampled_from(PASTES).map(lambda text: Paste(text)),
    st.sampled_from(SIZES).map(lambda size: Resize(Size(*size), Size(*size))),
)


def key_of(name: str) -> Key:
    """The event of a key, as a terminal sends it."""
    return Key(name, {"question_mark": "?", "space": " ", "enter": "\r"}.get(name, name if len(name) == 1 else None))


async def handled(app: PlannerApp) -> None:
    """Wait until the planner has handled every event: a key goes down to a widget and may come up again."""
    for _ in range(6):
        done = asyncio.Event()
        app.call_later(done.set)
        while not (done.is_set() or app._exit):  # the palette may end it
            await asyncio.sleep(0.002)
        await wait_for_idle(0)


async def played(steps: list[str | Event]) -> None:
    """Open the planner and do these steps. Raises what a handler raised."""
    app = PlannerApp(Session(as_of="2026-01-31", version="0.test"))
    app.animation_level = "none"
    async with app.run_test(size=(120, 40)) as pilot:
        await pilot.pause()
        for step in steps:
            if app._exit:
                return  # by the palette
            if step == WAIT:
                await handled(app)
                await pilot.pause()
            for event in [step] if isinstance(step, Event) else map(key_of, step.split()):
                app.post_message(event)
            await asyncio.sleep(0)
            assert len(app.screen_stack) <= 2, app.screen_stack
        await handled(app)
        assert len(app.screen_stack) <= 2, app.screen_stack


@settings(parent=examples(2), phases=[Phase.explicit, Phase.generate])  # shrinking would take minutes
@given(st.lists(STEPS, min_size=10, max_size=20))
@example(["ctrl+p", WAIT, "f1", WAIT, "ctrl+s", WAIT, "ctrl+e", WAIT, "ctrl+o", WAIT, "ctrl+p", WAIT])
@example(["ctrl+s", WAIT, "ctrl+p", WAIT, *"save", WAIT, "enter enter", WAIT, "ctrl+e", WAIT, "f1", WAIT])
def test_random_keys_never_crash(steps):
    quiet = (sys.executable, "-S", "-c", "pass")  # in place of the trainer
    with TemporaryDirectory() as folder, chdir(folder), patch("tui.trainer.PROGRAM", quiet):
        asyncio.run(played(steps))


@pytest.mark.parametrize("first", one_in(2, ["f1", "ctrl+s", "ctrl+l", "question_mark", "ctrl+p", "ctrl+o"]))
def test_no_key_opens_a_dialog_over_another(first, planner_app):
    async def play(user):
        user.app.query_one("#tabs").focus()
        await user.press(first)
        opened = user.app.screen
        assert user.app.screen_stack[1:] == [opened]
        keys = [key for key in ("ctrl+p", "f1", "ctrl+s", "ctrl+e", "ctrl+l", "f6") if not (key == first == "f1")]
        await user.press(*keys)  # F1 closes the help
        assert user.app.screen_stack[1:] == [opened] and user.app.pinned is None

    planner_app(play)


def test_a_search_of_a_palette_that_was_closed_is_no_crash(planner_app):
    async def play(user):
        await user.press("ctrl+p")
        palette = user.app.screen
        with pytest.raises(NoMatches) as missed:
            palette.query_one("#none")
        await user.press("escape")
        user.app._handle_exception(WorkerFailed(missed.value))
        await user.press("f6")
        assert user.app.crash is None and user.app.pinned is not None

    planner_app(play)
