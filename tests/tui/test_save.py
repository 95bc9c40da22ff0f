"""Saving writes the complete plan that is shown, and overwrites nothing without confirmation."""

from __future__ import annotations

import pytest
from textual.widgets import Button

from planner.errors import FileError
from planner.files import read_text, write_atomically
from planner.inputs.run_toml import load_config
from tui.screens.save import SaveScreen


def test_save_writes_what_the_command_reads(planner_app, tmp_path):
    path = tmp_path / "run.toml"

    async def play(user):
        await user.type("gpus", "8")
        await user.press("ctrl+s")
        assert isinstance(user.app.screen, SaveScreen)
        await user.type("path", str(path))
        await user.press("enter")
        assert len(user.app.screen_stack) == 1
        assert load_config(path) == user.app.result.plan.config
        assert load_config(path).hardware.gpus == 8

    planner_app(play)


def test_an_existing_file_needs_a_confirmation(planner_app, tmp_path):
    path, other = tmp_path / "run.toml", tmp_path / "other.toml"
    path.write_text("mine")
    other.write_text("theirs")

    async def play(user):
        await user.press("ctrl+s")
        button = user.app.screen.query_one("#overwrite", Button)
        await user.type("path", str(path))
        assert not button.display
        await user.press("enter")
        assert "exists already" in user.dialog("#refusal") and "Overwrite" in user.dialog("#refusal")
        assert button.display and path.read_text() == "mine"
        await user.press("enter")  # Enter never overwrites, however often
        assert path.read_text() == "mine"
        await user.type("path", str(other))  # the confirmation would have been for the first file
        assert not button.display and user.dialog("#refusal") == ""
        await user.type("path", str(path))
        await user.press("enter")
        await user.pilot.click("#overwrite")
        await user.settle()
        assert len(user.app.screen_stack) == 1
        assert load_config(path) == user.app.result.plan.config
        assert other.read_text() == "theirs"

    planner_app(play)


UNWRITABLE = {"": "the name is missing", "{}": "is a directory", "{}/none/run.toml": "cannot be written"}


def test_a_name_that_cannot_be_written_is_explained(planner_app, tmp_path):
    async def play(user):
        await user.press("ctrl+s")
        for name, words in UNWRITABLE.items():
            await user.type("path", name.format(tmp_path))
            await user.press("enter")
            assert words in user.dialog("#refusal") and "fix:" in user.dialog("#refusal")
            assert not user.app.screen.query_one("#overwrite", Button).display
        await user.press("escape")
        assert len(user.app.screen_stack) == 1

    planner_app(play)
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_saved_while_a_field_is_wrong(planner_app):
    async def play(user):
        await user.type("tokens", "many")
        await user.press("ctrl+s")
        assert len(user.app.screen_stack) == 1

    planner_app(play)


def test_a_zero_byte_in_a_name_is_a_message_in_every_dialog(planner_app):
    async def play(user):
        for key in ("ctrl+s", "ctrl+l"):
            await user.press(key)
            await user.type("path", "a\0b")
            await user.press("enter")
            assert "zero byte" in user.dialog("#refusal"), key
            await user.press("escape")
        await user.open("run")
        user.app.query_one("#pane-run").focus()
        for key, field in (("n", "run-directory"), ("n", "run-data"), ("a", "run-path")):
            await user.press(key)
            await user.type(field, "a\0b")
            await user.press("enter")
            assert "zero byte" in user.dialog("#refusal"), field
            await user.press("escape")
        await user.open("compare")
        await user.type("compare-path", "a\0b")
        user.app.query_one("#compare-path").focus()
        await user.press("enter")
        assert "zero byte" in user.text("#compared")

    planner_app(play)


def test_a_zero_byte_in_the_name_of_a_file_is_an_error_of_the_file(tmp_path):
    for act in (read_text, lambda path: write_atomically(path, "x")):
        with pytest.raises(FileError, match="null byte"):
            act(tmp_path / "a\0b")
