"""What is on the screen: every size, no colour, the keys, help and palette."""

from __future__ import annotations

import pytest
from textual.widgets import Static


def test_keys_of_copy_help_palette_and_quit(sit):
    async def play(user):
        await user.press("ctrl+y")
        assert user.app.clipboard == "gptplan estimate --params 125M --tokens 10B"

        await user.type("gpu", "")
        await user.press("f1")
        words = " ".join(str(s.render()) for s in user.app.screen.query(Static))
        assert "h100-80gb" in words and "Ctrl+S" in words
        await user.press("escape")
        assert len(user.app.screen_stack) == 1

        titles = [command.title for command in user.app.get_system_commands(user.app.screen)]
        assert {"Save as run.toml", "Copy the command", "Quit", "Theme"} <= set(titles)
        await user.press("ctrl+p")
        assert type(user.app.screen).__name__ == "CommandPalette"
        await user.press("escape")
        await user.pilot.press("ctrl+q")
        assert user.app._exit

    sit(play)


@pytest.mark.parametrize("size", [(60, 20), (80, 24), (120, 40), (200, 60)])
def test_form_and_verdict_are_visible_at_every_size(sit, size):
    async def play(user):
        for text in ("10B", "10 bananas"):
            await user.type("tokens", text)
            seen = screen_text(user)
            assert "parameters" in seen and text in seen
            assert "✓ fits" in seen and "tokens/s" in seen and "steps" in seen
            assert "gptplan estimate --params 125M" in seen
            assert ("is not a count" in seen) == (text != "10B")
            assert ("Last valid result" in seen) == (text != "10B")
            assert "Quit" in seen

    sit(play, size=size)


def screen_text(user) -> str:
    """What the terminal shows, line by line."""
    return "\n".join("".join(s.text for s in strip) for strip in user.app.screen._compositor.render_strips())


def test_below_100_columns_the_panes_are_stacked(sit):
    async def play(user):
        for width in (100, 99, 60, 100):
            await user.pilot.resize_terminal(width, 40)
            await user.settle()
            left, right = user.app.query_one("#left").region, user.app.query_one("#right").region
            assert (right.x >= left.right) == (width == 100)
            assert (right.y >= left.bottom) == (width < 100)

    sit(play, size=(100, 40))


def test_without_colour_the_state_is_still_said(sit, monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")

    async def play(user):
        await user.type("gpu", "nonesuch")
        seen = screen_text(user)
        assert user.app.no_color
        assert "✗ GPU" in seen and "Last valid result" in seen and "✗ unknown GPU" in seen

    sit(play)
