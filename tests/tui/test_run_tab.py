"""The tab Run: start a run, detach, attach, stop; the real trainer once, else a fake with the same signals."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pytest

from planner.inputs.draft import draft
from planner.inputs.flags import Flags
from planner.inputs.run_toml import config_text, load_config
from planner.runs.directory import owner_of
from tui import trainer
from tui.screens.run import AttachScreen, KillScreen, StartScreen
from tui.session import Session
from tui.widgets.results import Results

FAKE = (sys.executable, str(Path(__file__).with_name("fake_trainer.py")))
TINY = Flags(layers="1", hidden="16", heads="1", vocab="256", seq="16", tokens="2000000", global_batch_tokens="64",
             micro_batch="4", gpu="cpu", recipe="fp32")  # fmt: skip


@pytest.fixture
def session(tmp_path, monkeypatch) -> Session:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(p for p in sys.path if p))
    config = draft(TINY, as_of="2026-01-31", version="0.test")
    (tmp_path / "tiny.toml").write_text(config_text(config))
    return Session(as_of="2026-01-31", version="0.test").opened(tmp_path / "tiny.toml")


@pytest.fixture(autouse=True)
def no_run_is_left():
    yield
    for process in trainer._ours:
        if process.poll() is None:
            process.kill()
        process.wait()


async def pane_of(user, program=FAKE):
    if user.app.size.width < 100:
        await user.press("f2")
    await user.open("run")
    pane = user.app.query_one(Results).pane
    pane.program = program
    pane.focus()
    await user.pilot.pause()
    return pane


async def until(user, condition, seconds=40):
    await user.until(condition, every=0.05, turns=int(seconds / 0.05))
    await user.pilot.pause()  # until it is drawn


async def started(user, name, program=FAKE):
    pane = await pane_of(user, program)
    await user.pilot.press("n")
    await user.pilot.pause(0.1)
    assert isinstance(user.app.screen, StartScreen)
    user.app.screen.query_one("#run-directory").value = name
    await user.pilot.press("enter")
    await user.pilot.pause(0.1)
    return pane


def is_at(pane, stage):
    return lambda: pane.status is not None and pane.status.stage == stage


def test_start_detach_attach_stop_with_the_real_trainer(planner_app, tmp_path, machine_cache, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(machine_cache))
    out = tmp_path / "runs/real"

    async def play(user):
        pane = await started(user, "runs/real", trainer.PROGRAM)
        await until(user, lambda: pane.status is not None and pane.status.record.last is not None)
        assert pane.status.stage == "running" and "▶ running" in user.seen() and "learning rate" in user.seen()
        assert load_config(tmp_path / "runs/real.toml") == user.app.result.plan.config
        process = pane.status.process
        assert owner_of(out) == process
        rate = next(f for f in pane.status.figures if f.label == "learning rate")
        assert rate.measured == rate.predicted
        await user.pilot.press("d")
        await user.pilot.pause(0.1)
        assert pane.watched is None and owner_of(out) == process and "No run is watched" in user.seen()
        await user.pilot.press("a")
        await user.pilot.pause(0.3)
        assert isinstance(user.app.screen, AttachScreen) and "▶ runs/real" in user.seen()
        await user.pilot.press("down", "enter")
        await until(user, is_at(pane, "running"))
        assert pane.watched.process is None and pane.status.process == process
        await user.pilot.press("k")
        await until(user, lambda: any(e["event"] == "checkpoint" for e in pane.status.record.events))
        assert pane.status.stage == "running"
        await user.pilot.press("x")
        await until(user, is_at(pane, "stopped"))
        assert "■ stopped; it can be resumed" in user.seen()
        assert [e["event"] for e in pane.status.record.events][-2:] == ["signal", "stopped"]
        assert owner_of(out) is None and any((out / "checkpoints").iterdir())

    planner_app(play)


def test_a_run_outlives_the_planner(planner_app, tmp_path):
    async def begin(user):
        pane = await started(user, "runs/long")
        await until(user, is_at(pane, "running"))

    async def come_back(user):
        pane = await pane_of(user)
        pane.watch_run(Path("runs/long"))
        await until(user, is_at(pane, "running"))
        step = pane.status.record.last["step"]
        await until(user, lambda: pane.status.record.last["step"] > step)
        await user.pilot.press("x")
        await until(user, is_at(pane, "stopped"))
        await user.pilot.press("r")
        await until(user, is_at(pane, "running"))
        assert pane.status.record.start["event"] == "resume"
        await user.pilot.press("x")
        await until(user, is_at(pane, "stopped"))

    planner_app(begin)
    process = owner_of(tmp_path / "runs/long")
    assert process is not None and os.getsid(process) == process  # no terminal's end reaches it
    os.kill(process, signal.SIGHUP)
    planner_app(come_back, size=(60, 20))


def test_a_failing_run_shows_its_message_and_exit_code(planner_app):
    async def play(user):
        pane = await started(user, "runs/fails")
        await until(user, is_at(pane, "failed"))
        seen = user.seen()
        assert "✗ failed (exit code 2)" in seen and "error: the data is too short" in seen and "fix: give more" in seen
        assert "Traceback" not in seen

    planner_app(play, size=(80, 24))


def test_a_second_stop_asks_before_killing(planner_app):
    async def play(user):
        pane = await started(user, "runs/stubborn")
        await until(user, is_at(pane, "running"))
        await user.pilot.press("x")
        await until(user, is_at(pane, "stopping"))
        assert "stopping after its step, saving" in user.seen()
        await user.pilot.press("x")
        await user.pilot.pause(0.1)
        assert isinstance(user.app.screen, KillScreen)
        await user.pilot.press("enter")  # the first button waits
        await user.pilot.pause(0.1)
        assert pane.watched.process.poll() is None
        await user.pilot.press("x")
        await user.pilot.pause(0.1)
        await user.pilot.click("#kill")
        await until(user, is_at(pane, "gone"))
        assert "the process died without an error message" in user.seen()

    planner_app(play)


def test_a_refused_start_shows_why_and_writes_nothing(planner_app, tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full/mine").write_text("")
    (tmp_path / "other.toml").write_text("mine")

    async def play(user):
        await pane_of(user)
        await user.pilot.press("n")
        await user.pilot.pause(0.1)
        fields = (("directory", "full", "not empty"), ("directory", "", "missing"), ("directory", "other", "exists"),
                  ("limit", "soon", "limit"), ("stop", "many", "steps"), ("data", "gone", "gone"))  # fmt: skip
        for name, text, message in fields:
            before = user.app.screen.query_one(f"#run-{name}").value
            user.app.screen.query_one(f"#run-{name}").value = text
            await user.pilot.press("enter")
            await user.pilot.pause(0.05)
            assert message in user.dialog("#refusal"), (name, text)
            if name == "directory":
                before = "fresh"
            user.app.screen.query_one(f"#run-{name}").value = before
        assert sorted(p.name for p in tmp_path.iterdir()) == ["full", "other.toml", "tiny.toml"]
        assert (tmp_path / "other.toml").read_text() == "mine" and trainer._ours == []
        await user.pilot.press("escape")

    trainer._ours.clear()
    planner_app(play)


def test_attaching_to_a_directory_without_a_run(planner_app, tmp_path):
    (tmp_path / "empty").mkdir()

    async def play(user):
        pane = await pane_of(user)
        for text, why in (("empty", "no config.toml"), ("none", "does not exist")):
            await user.pilot.press("a")
            await user.pilot.pause(0.2)
            user.app.screen.query_one("#run-path").value = text
            await user.pilot.press("enter")
            await user.pilot.pause(0.05)
            assert "is not a run directory" in user.dialog("#refusal") and why in user.dialog("#refusal")
            await user.pilot.press("escape")
            await user.pilot.pause(0.05)
        assert pane.watched is None

    planner_app(play)


def test_torn_lines_and_files_that_come_later(planner_app, tmp_path):
    run = tmp_path / "torn"
    run.mkdir()
    (run / "config.toml").write_text("schema_version = 9")

    async def play(user):
        pane = await pane_of(user)
        pane.watch_run(run)
        await until(user, is_at(pane, "nothing"))
        (run / "events.jsonl").write_text('{"event": "start", "step": 0}\n{"ev')
        (run / "metrics.jsonl").write_text('{"step": 1, "loss": 2.25}\n{"step": 2, "lo')
        await until(user, lambda: pane.status.record.last is not None)
        assert pane.status.record.last["step"] == 1 and pane.status.stage == "gone"
        await until(user, lambda: "2.25" in user.seen())  # drawn at the next turn
        with (run / "metrics.jsonl").open("a") as file:
            file.write('ss": 2.125}\n')
        await until(user, lambda: pane.status.record.last["step"] == 2)
        (run / "metrics.jsonl").write_text('{"step": 1, "loss": 2.5}\n')
        await until(user, lambda: pane.status.record.last["loss"] == 2.5)

    planner_app(play)


def test_the_palette_and_help_know_the_run(planner_app):
    async def play(user):
        commands = {c.title: c for c in user.app.get_system_commands(user.app.screen)}
        assert {"Run: New run", "Run: Attach", "Run: Stop", "Run: Resume"} <= set(commands)
        assert all(c.help for c in commands.values())
        await commands["Run: Attach"].callback()
        await user.pilot.pause(0.2)
        assert isinstance(user.app.screen, AttachScreen) and user.app.query_one(Results).active == "run"
        await user.pilot.press("escape")
        await user.pilot.pause(0.1)
        await user.press("f1")
        assert "Stop following the run" in user.seen()

    for size in ((120, 40), (60, 20)):
        planner_app(play, size=size)
