"""What a terminal may do to the planner: extreme sizes, long and dangerous pastes, files that vanish."""

from __future__ import annotations

import shutil
from pathlib import Path

from textual.events import Paste, Resize
from textual.geometry import Size
from textual.widgets import Input, OptionList

from tui.panes.run import RunPane
from tui.widgets.results import Results
from tui.widgets.row import FieldRow

RUN = Path(__file__).parents[2] / "docs" / "looks" / "run"


def test_a_paste_puts_no_control_character_on_the_screen(planner_app):
    async def play(user):
        field = user.app.query_one("#params", Input)
        field.focus()
        await user.settle()
        field.value = ""
        user.app.post_message(Paste("\x1b[31m7\x07\x00\u202eB🦙"))
        await user.settle()
        assert field.value == "\ufffd[31m7\ufffd\ufffd\ufffdB🦙" and user.app.error is not None
        assert not any(ord(c) < 32 for c in user.seen().replace("\n", ""))
        user.app.post_message(Paste("9" * 1_000_000))
        await user.settle()
        assert len(field.value) < 20 and "too long" in [n.title[2:] for n in user.app._notifications]
        field.value = ""
        user.app.post_message(Paste("350M\nmore"))
        await user.settle()
        assert user.app.flags.params == "350M"

    planner_app(play)


def test_names_and_notifications_put_no_control_character_on_the_screen(planner_app, tmp_path, monkeypatch):
    """A run's folder may have any name, and a message may quote a file."""
    name = "a\x1b]0;owned\x07b\u202e"
    shutil.copytree(RUN, tmp_path / name)
    monkeypatch.chdir(tmp_path)

    async def play(user):
        user.app.notify(f"cannot read {name}", title=name, markup=False)
        await user.settle()
        (note,) = user.app._notifications
        assert note.message == "cannot read a\ufffd]0;owned\ufffdb\ufffd" and note.title == note.message[12:]
        await user.app.query_one(Results).show("compare")
        await user.until(lambda: user.app.query_one("#compare-runs", OptionList).option_count == 1)
        await user.settle()
        user.app.query_one("#row-model", FieldRow).show_text(name)
        assert user.app.query_one("#model", Input).value == note.title
        await user.settle()
        assert "owned" in user.seen() and not any(ord(c) < 32 for c in user.seen().replace("\n", ""))

    planner_app(play)


def test_no_size_is_a_crash(planner_app):
    async def play(user):
        for size in (Size(1, 1), Size(500, 200), Size(1, 200), Size(120, 40)):
            user.app.post_message(Resize(size, size))
            await user.press("f8")
        assert "tokens/s" in user.seen() and user.app.crash is None

    planner_app(play, draws=True)


def test_a_run_directory_that_vanishes_while_it_is_shown(planner_app, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(RUN, run)

    async def play(user):
        await user.open("run")
        pane = user.app.query_one(RunPane)
        pane.watch_run(run)
        await user.until(lambda: pane.status is not None)
        assert pane.status.stage == "finished"
        shutil.rmtree(run)
        pane.poll()
        await user.until(lambda: pane.status.stage == "nothing")
        run.write_text("no directory")
        pane.poll()
        await user.press("s")
        assert user.app.crash is None

    planner_app(play)
