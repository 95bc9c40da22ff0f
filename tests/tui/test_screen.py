"""What is on the screen: every size, no colour, the keys, help and palette."""

from __future__ import annotations

import pytest
from textual.widgets import Footer, Input, Static

from planner.config.options import OPTION
from tests.soak import some
from tui.actions import ACTIONS, ONE_PANE
from tui.panes import PANES
from tui.screens.jump import JumpScreen
from tui.widgets.results import Results

SIZES = [(60, 20), (80, 24), (120, 40), (200, 60)]


def test_keys_of_copy_help_palette_and_quit(planner_app):
    async def play(user):
        await user.press("ctrl+y")
        assert user.app.clipboard == "gptplan estimate --params 125M --tokens 10B"

        await user.type("gpu", "")
        await user.press("f1")
        words = " ".join(str(s.render()) for s in user.app.screen.query(Static))
        assert "h100-80gb" in words and OPTION["gpu"].help in words
        await user.press("escape")
        assert len(user.app.screen_stack) == 1

        await user.press("question_mark")  # in a field: none takes one
        words = " ".join(str(s.render()) for s in user.app.screen.query(Static))
        assert all(action.sentence in words and action.spelled() in words for action in ACTIONS)
        await user.press("escape")
        assert user.app.flags.gpu is None

        found = {command.title: command.help for command in user.app.get_system_commands(user.app.screen)}
        assert {a.title for a in ACTIONS if a.method not in ONE_PANE} <= set(found) and all(found.values())
        assert "Theme" in found
        await user.press("ctrl+p")
        assert type(user.app.screen).__name__ == "CommandPalette"
        await user.press("escape")
        await user.pilot.press("ctrl+q")
        assert user.app._exit

    planner_app(play)


def test_the_palette_runs_an_action(planner_app):
    async def play(user):
        await user.press("ctrl+p", *"pin")
        await user.pilot.pause(0.3)
        await user.press("enter")
        assert user.app.pinned is not None

    planner_app(play)


SHOWS = {
    "summary": ("[no_checkpoints]",),
    "memory": ("init", "GiB"),
    "schedule": ("step ", "rate ", "▲", "10B tokens"),
    "explain": ("cost.usd", "part of a name"),
    "config": ("gptplan estimate", "schema_version = 1"),
    "run": ("No run is watched", "attach to an existing run"),
    "compare": ("a finished run's directory",),
}


async def form_and_verdict_are_visible(user):
    """With a valid and with a wrong text; the text is valid again at the end."""
    for text in ("10 bananas", "10B"):
        await user.type("tokens", text)
        seen = user.seen()
        assert "parameters" in seen and text in seen
        assert "✓ fits" in seen and "tokens/s" in seen and "steps" in seen
        assert "gptplan estimate --params 125M" in seen
        assert ("is not a count" in seen) == (text != "10B")
        assert ("Last valid result" in seen) == (text != "10B")
        for key in ("Help", "Save", "Keys", "Quit"):
            assert key in seen.splitlines()[-1]


@pytest.mark.parametrize("size", some([(size,) for size in SIZES], lambda case: case[0] == SIZES[0]))
def test_every_tab_at_every_size(planner_app, size):
    """The form and the verdict are visible; each tab shows its subject; no widgets overlap; all can be scrolled to."""

    async def play(user):
        app = user.app
        await form_and_verdict_are_visible(user)
        if size[0] < 100:
            assert app.query_one("#pane").region.area == 0
            await user.press("f2")
            assert app.query_one("#form").region.area == 0
        for kind in PANES:
            await user.open(kind.id)
            seen = user.seen()
            for words in (*SHOWS[kind.id], "✓ fits", kind.title, "? Keys"):
                assert words in seen, (kind.id, words)
            parts = [app.query_one(f"#{id}").region for id in ("form", "headline", "tabs", "pane", "command")]
            parts = [p for p in (*parts, app.query_one(Footer).region) if p.area]
            assert all(app.screen.region.contains_region(p) for p in parts)
            assert not any(a.overlaps(b) for i, a in enumerate(parts) for b in parts[i + 1 :])
            assert app.query_one("#pane").region.height >= 5
            for text in app.query_one(f"#pane-{kind.id}").query(Static):
                holder = text.parent
                if text.region.width > holder.size.width or text.region.height > holder.size.height:
                    assert holder.max_scroll_x or holder.max_scroll_y, (kind.id, text.id)
        if size[0] < 100:
            await user.press("f2")
            assert app.query_one("#form").region.area and app.query_one("#pane").region.area == 0

    planner_app(play, size=size)


def test_below_100_columns_one_pane_is_seen(planner_app):
    async def play(user):
        for width in (100, 99, 60, 100):
            await user.pilot.resize_terminal(width, 40)
            await user.settle()
            form, pane = user.app.query_one("#form").region, user.app.query_one("#pane").region
            assert form.area and bool(pane.area) == (width == 100)
            assert ("f2 Results" in user.seen()) == (width < 100)

    planner_app(play, size=(100, 40))


def test_a_click_opens_a_tab_and_a_group(planner_app):
    async def play(user):
        await user.pilot.click("#tab-memory")
        await user.settle()
        assert "◄ peak" in user.seen()
        await user.pilot.click("#row-tokens", offset=(2, 0))
        assert user.app.focused.id == "tokens", "a name is its field"
        await user.pilot.click("#group-3-title")
        await user.settle()
        assert user.app.query_one("#accumulation", Input).placeholder == "(32)"

    planner_app(play)


def test_jump_goes_to_tabs_fields_and_groups(planner_app):
    async def play(user):
        for wanted in ("#tab-schedule", "#gpus", "#group-2-title"):
            await user.press("ctrl+o")
            screen = user.app.screen
            assert isinstance(screen, JumpScreen)
            place = user.app.screen_stack[0].query_one(wanted)
            key = next(key for key, widget in screen.targets.items() if widget is place)
            letter = next(w for w in screen.query(".jump") if str(w.render()) == key)
            assert letter.region.y == place.region.y and 0 <= place.region.x - letter.region.x <= 1
            await user.press(key)
            assert len(user.app.screen_stack) == 1
            if wanted.startswith("#tab"):
                assert user.app.query_one(Results).active == "schedule"
            else:
                assert user.app.focused is place
        await user.press("ctrl+o", "escape")
        assert user.app.focused is place

    planner_app(play)


def test_without_colour_the_state_has_signs_and_words(planner_app, monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")

    async def play(user):
        await user.type("gpu", "nonesuch")
        seen = user.seen()
        assert user.app.no_color
        assert "✗ GPU" in seen and "Last valid result" in seen and "unknown GPU 'nonesuch'" in seen

    planner_app(play)
