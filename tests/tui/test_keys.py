"""Keys keep their order when they come faster than the planner computes, as from a browser or a slow connection."""

from __future__ import annotations

from textual.events import Key
from textual.widgets import Input


def test_fast_keys_keep_their_order(planner_app):
    async def play(user):
        user.app.query_one("#params").focus()
        await user.settle()
        for key in ("end", *["backspace"] * 4, *"350M", "home", "delete", "1", "ctrl+k", "2", "B"):
            user.app.post_message(Key(key, key if len(key) == 1 else None))
        await user.settle()
        assert user.app.query_one("#params", Input).value == "12B"

    planner_app(play)
