"""Whole tasks, key by key: the largest micro-batch that fits, why one plan costs more, undo."""

from __future__ import annotations

import json
from dataclasses import replace
from fractions import Fraction
from threading import Event

from textual.widgets import Input

from planner.config.run import RunConfig
from planner.inputs.flags import Flags
from planner.inputs.run_toml import config_text, load_config
from tui.export import exported
from tui.history import History
from tui.screens.open import OpenScreen
from tui.session import FormState, PlanResult, Session, config_result, differences_of, flags_result
from tui.widgets.form import PlanForm


def test_the_largest_micro_batch_that_fits_is_found_and_saved(planner_app, session, tmp_path):
    """Doubling until the verdict says no, then between the last two: reading only the screen."""
    path = tmp_path / "run.toml"

    async def play(user):
        await user.type("gpu", "a100-40gb")

        async def fits(size: int) -> bool:
            await user.type("micro_batch", str(size))
            assert user.app.error is None
            return "✓ fits" in user.text("#headline")

        low = 1
        while await fits(2 * low):
            low *= 2
        high = 2 * low
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if await fits(middle) else (low, middle)
        await fits(low)
        await user.press("ctrl+s")
        await user.type("path", str(path))
        await user.press("enter")
        saved = load_config(path)
        assert saved.training.micro_batch == low > 8
        flags = Flags(params="125M", tokens="10B", gpu="a100-40gb")
        assert flags_result(replace(flags, micro_batch=str(low)), session).plan.memory.fits
        assert not flags_result(replace(flags, micro_batch=str(low + 1)), session).plan.memory.fits

    planner_app(play)


def test_two_plans_and_why_one_costs_more(planner_app, session):
    async def play(user):
        await user.press("f6")
        assert "pinned" in user.text("#headline")
        await user.type("tokens", "20B")
        await user.type("gpus", "4")
        text = user.text("#differences")
        before = FormState(session, Flags(params="125M", tokens="10B"))
        after = FormState(session, replace(before.flags, tokens="20B", gpus="4"))
        cost = next(d for d in differences_of(before, after) if d.after.key == "usd")
        assert [s.names for s in cost.shares] == [("tokens",), ("gpus",)]
        assert sum(s.amount for s in cost.shares) == Fraction(cost.after.number.value) - Fraction(
            cost.before.number.value
        )
        lines = text.splitlines()
        start = next(i for i, line in enumerate(lines) if line.startswith("cost"))
        assert (
            cost.before.spell(cost.before.number.value) in lines[start]
            and cost.after.spell(cost.after.number.value) in lines[start]
        )
        assert "by training tokens" in lines[start + 1] and "+$" in lines[start + 1]
        assert "by number of GPUs" in lines[start + 2]
        assert "10B tokens, 1 x a100-80gb" in text and "20B tokens, 4 x a100-80gb" in text
        await user.type("tokens", "nonsense")  # the comparison stays with the last plan that could be computed
        assert "last valid result" in user.text("#headline") and user.text("#differences") == text
        await user.type("tokens", "20B")
        assert user.text("#differences") == text
        await user.press("f6")
        assert not user.app.query_one("#differences").display and "pinned" not in user.text("#headline")

    planner_app(play)


def test_nothing_is_pinned_while_a_field_is_wrong(planner_app):
    async def play(user):
        await user.type("tokens", "many")
        await user.press("f6")
        assert user.app.pinned is None

    planner_app(play)


def test_undo_and_redo(planner_app):
    async def play(user):
        await user.press("down", "down", "end", "backspace", "backspace", "backspace", *"300B")
        assert user.app.flags.tokens == "300B"
        await user.type("gpus", "8")
        eight = user.text("#headline")
        await user.press("ctrl+z")
        assert user.app.flags == Flags(params="125M", tokens="300B")
        assert user.app.query_one("#gpus", Input).value == ""
        await user.press("ctrl+z")  # the keys of one field in a row are one step
        assert user.app.flags == Flags(params="125M", tokens="10B")
        assert user.app.query_one("#tokens", Input).value == "10B"
        await user.press("ctrl+z")
        assert user.app.flags == Flags(params="125M", tokens="10B")
        await user.press("ctrl+r", "ctrl+shift+z")
        assert user.app.flags == Flags(params="125M", tokens="300B", gpus="8")
        assert user.text("#headline") == eight
        await user.press("ctrl+z")
        await user.type("seq", "512")
        await user.press("ctrl+r")  # what was undone before another change is gone
        assert user.app.flags == Flags(params="125M", tokens="300B", seq="512")

    planner_app(play)


def test_history_forgets_nothing_but_the_oldest():
    def form_state(**flags: str) -> FormState:
        return FormState(one, Flags(**flags))

    one = Session(as_of="2026-01-31", version="0")
    history = History(form_state(tokens="1"))
    for i in range(2, 600):
        history.record(form_state(tokens=str(i)))
        history.close()
    assert history.undo() == form_state(tokens="598") and history.redo() == form_state(tokens="599")
    assert history.redo() is None
    steps = 0
    while history.undo() is not None:
        steps += 1
    assert steps == 500 and history.present == form_state(tokens="99")


def test_another_file_is_opened_and_undone(planner_app, session, small, tmp_path):
    path, bad = tmp_path / "other.toml", tmp_path / "bad.toml"
    config = flags_result(replace(small, tokens="3B", gpus="2"), session).plan.config
    path.write_text(config_text(config))
    bad.write_text("schema_version = 1\nnonsense = 2\n")

    async def play(user):
        await user.type("gpus", "4")
        before = user.app.flags
        await user.press("ctrl+l")
        assert isinstance(user.app.screen, OpenScreen)
        for name, words in {str(bad): "nonsense", str(tmp_path): "is a directory", "": "name is missing"}.items():
            await user.type("path", name)
            await user.press("enter")
            assert words in user.dialog("#refusal") and "fix:" in user.dialog("#refusal")
        await user.type("path", str(path))
        await user.press("enter")
        assert user.app.result.plan.config == config and user.app.flags == Flags()
        assert user.app.query_one("#gpus", Input).value == ""
        assert f"--config {path}" in user.text("#command")
        await user.press("ctrl+z")
        assert user.app.flags == before and user.app.session.base is None
        assert user.app.query_one("#gpus", Input).value == "4"

    planner_app(play)


def test_export_writes_what_the_command_prints(planner_app, tmp_path):
    async def play(user):
        for name in ("plan.json", "plan.md", "plan.txt"):
            await user.press("ctrl+e")
            await user.type("path", str(tmp_path / name))
            await user.press("enter")
        assert "does not end in .json or .md" in user.dialog("#refusal")
        await user.press("escape")
        written = json.loads((tmp_path / "plan.json").read_text())
        plan = user.app.result.plan
        assert written["memory"]["peak_reserved_bytes"] == plan.memory.peak_reserved_bytes.value
        assert written["cost"]["usd"] == plan.cost.usd.value and written["findings"]
        assert "gptplan estimate --params 125M" in (tmp_path / "plan.md").read_text()
        assert not (tmp_path / "plan.txt").exists()
        assert exported(user.app.result, "x", tmp_path / "a.md").startswith("# ")

    planner_app(play)


def test_the_device_bytes_are_replayed_after_the_keys_rest(planner_app, session, small, monkeypatch):
    gate = Event()

    def gated(config: RunConfig, *, replay: bool) -> PlanResult:
        assert gate.wait(30)
        return config_result(config, replay=replay)

    async def play(user):
        quick, whole = (flags_result(small, session, replay=r).plan.memory for r in (False, True))
        assert user.app.result.plan.memory == whole != quick
        monkeypatch.setattr("tui.live_plan.config_result", gated)
        user.app.query_one("#micro_batch", Input).value = "8"
        while user.app.flags.micro_batch is None:
            await user.pilot.pause(0.01)
        # the keyboard is free and the plan is shown, its device bytes by rule and marked so
        await user.press_only("tab", "tab")
        assert not user.app.settled and " …" in user.text("#headline").splitlines()[0]
        assert user.app.result.plan.config.training.micro_batch == 8
        gate.set()
        await user.settle()
        assert user.app.result.settled and " …" not in user.text("#headline").splitlines()[0]
        assert user.app.result == flags_result(replace(small, micro_batch="8"), session)

    planner_app(play)


def test_the_schedule_is_read_off_at_the_cursor(planner_app):
    async def play(user):
        await user.open("schedule")
        user.app.query_one("#pane-schedule").focus()
        await user.press("home")
        assert "step 0 of 19,073" in user.text("#reading") and "rate 0 " in user.text("#reading")
        await user.press("end")
        words = " ".join(user.text("#reading").split())
        assert words.startswith("step 19,073 of 19,073") and "10 % of the peak" in words
        await user.press("shift+left", "left")
        assert "step 19,073 of" not in user.text("#reading")
        await user.type("schedule", "wsd")
        assert "wsd" in user.text("#landmarks")

    planner_app(play)


def test_any_number_can_be_explained(planner_app):
    async def play(user):
        await user.open("explain")
        assert "cost.usd = " in user.text("#why") and "LaTeX" in user.text("#why")
        await user.type("filter", "training_6nd")
        await user.press("enter", "home")
        assert user.text("#why").startswith("flops.training_6nd = ") and "source" in user.text("#why")
        before = user.text("#why")
        user.app.query_one(PlanForm).query_one("#tokens", Input).value = "20B"
        await user.settle()
        assert user.text("#why").startswith("flops.training_6nd = ") and user.text("#why") != before
        await user.type("filter", "no such number")
        assert user.app.query_one("#keys").option_count == 0

    planner_app(play)


def test_the_config_tab_shows_what_is_saved(planner_app):
    async def play(user):
        await user.open("config")
        assert user.text("#toml") == config_text(user.app.result.plan.config)
        await user.type("params", "")
        await user.type("model", "gpt2")
        await user.type("tied", "untied")
        assert "tied_embeddings = false" in user.text("#toml")
        assert "--untied" in user.text("#same") and "--tied" not in user.text("#same")

    planner_app(play)


def test_memory_bars_zoom(planner_app):
    async def play(user):
        await user.open("memory")
        user.app.query_one("#pane-memory").focus()
        before = user.text("#bars")
        assert "┃" in before and "◄ peak" in before and " W  weights" in before
        await user.press("z")
        assert "┃" not in user.text("#bars") and user.text("#bars").count("L") > before.count("L")

    planner_app(play)
