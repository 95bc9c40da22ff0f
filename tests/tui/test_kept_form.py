"""The form on the disk: written while it is edited, offered after any end but Ctrl+Q, and never filled in unasked."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from planner.inputs.flags import Flags
from planner.inputs.run_toml import config_text
from tests.processes import at_terminal
from tests.tui.conftest import User
from tui import kept_form
from tui.app import PlannerApp
from tui.kept_form import FormKeeper, left_forms
from tui.private_files import state_directory
from tui.screens.offer import OfferScreen
from tui.session import FormState, flags_result

COMMAND = [sys.executable, "-m", "gptplan", "tui"]
EDITED = Flags(params="350M", tokens="10B")
# a process that keeps a form and is killed: `python -c` with the params as its argument
KILLED = """
import os, sys
from planner.inputs.flags import Flags
from tui.kept_form import FormKeeper
from tui.session import FormState, Session
keeper = FormKeeper()
file = None if len(sys.argv) < 3 else sys.argv[2]
keeper.keep(FormState(Session("2026-01-31", "0", file=file), Flags(params=sys.argv[1])))
keeper.flush()
print(keeper.path, flush=True)
os.kill(os.getpid(), 9)
"""


def killed_with(*words: str) -> Path:
    """The file that a killed process has left."""
    done = subprocess.run([sys.executable, "-c", KILLED, *words], capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    return Path(done.stdout.strip())


def forms() -> list[Path]:
    """Every file in the directory of kept forms."""
    return sorted(state_directory("forms").iterdir())


def play(session, steps):
    async def whole():
        app = PlannerApp(session, keeper=FormKeeper())
        app.animation_level = "none"
        async with app.run_test(size=(120, 40)) as pilot:
            user = User(app, pilot)
            await user.settle()
            await steps(user)

    asyncio.run(whole())


def test_a_form_is_written_for_its_user_only_and_goes_at_a_clean_end(session):
    keeper = FormKeeper()
    for text in ("350M", "360M"):
        keeper.keep(FormState(session, Flags(params=text)))
        keeper.flush()
    assert forms() == [keeper.path]
    assert stat.S_IMODE(keeper.path.stat().st_mode) == 0o600
    assert stat.S_IMODE(keeper.path.parent.stat().st_mode) == 0o700
    assert json.loads(keeper.path.read_text())["fields"] == {"params": "360M"}
    assert left_forms() == ([], [])  # this process lives
    keeper.keep(None)  # as at the start
    keeper.flush()
    assert forms() == []
    keeper.keep(FormState(session, EDITED))
    keeper.end()
    keeper.keep(FormState(session, EDITED))
    keeper.flush()
    assert forms() == []


def test_a_thread_writes_it_without_being_asked(session):
    keeper = FormKeeper()
    keeper.keep(FormState(session, EDITED))
    for _ in range(6000):
        if keeper.path is not None:
            break
        time.sleep(0.01)
    assert forms() == [keeper.path]
    keeper.end()


def test_what_a_killed_process_left_is_found_once(session, tmp_path):
    path = killed_with("350M")
    found, messages = left_forms()
    assert [form.flags for form in found] == [Flags(params="350M")] and messages == []
    assert left_forms() == ([], [])  # its lock is held: no other planner offers it
    assert found[0].state(session) == FormState(session, Flags(params="350M"))
    found[0].leave()
    (again,), _ = left_forms()
    again.remove()
    assert forms() == [] and not path.exists()


def test_a_file_that_is_gone_is_a_message_and_the_form_stays(session, small, tmp_path):
    file = tmp_path / "run.toml"
    killed_with("350M", str(file))

    async def steps(user):
        await user.until(lambda: isinstance(user.app.screen, OfferScreen))
        await user.press("enter")
        assert "run.toml does not exist" in user.dialog("#refusal")
        file.write_text(config_text(flags_result(small, session).plan.config))
        await user.press("enter")
        await user.until(lambda: user.app.session.file == file)
        assert user.app.flags == Flags(params="350M")

    play(session, steps)


DAMAGE = {
    "cut": b'{"format": 1, "fie',
    "empty": b"",
    "zeros": b"\0" * 4096,
    "list": b"[]",
    "version": b'{"format": 99}',
    "numbers": b'{"format": 1, "saved": "x", "directory": "", "file": null, "fields": {"params": 3}}',
    "unknown": b'{"format": 1, "saved": "x", "directory": "", "file": null, "fields": {"__class__": "3"}}',
    "file": b'{"format": 1, "saved": "x", "directory": "", "file": 7, "fields": {}}',
    "large": b"[" * (1 << 20) + b" ",
    "latin": b'{"format": 1, "saved": "\xe9"}',
    "deep": b"[" * 100_000,
}


@pytest.mark.parametrize("name", DAMAGE)
def test_a_damaged_file_is_put_aside_and_said_once(name):
    path = state_directory("forms") / "1-00.json"
    path.write_bytes(DAMAGE[name])
    found, messages = left_forms()
    assert found == [] and len(messages) == 1 and "1-00.damaged" in messages[0]
    assert left_forms() == ([], [])


def test_links_and_pipes_are_not_followed(tmp_path):
    directory = state_directory("forms")
    victim = tmp_path / "victim.json"
    victim.write_text(json.dumps({"format": 1, "saved": "x", "directory": "", "file": None, "fields": {}}))
    (directory / "1-link.json").symlink_to(victim)
    os.mkfifo(directory / "2-pipe.json")
    found, messages = left_forms()
    assert found == [] and len(messages) == 2 and victim.exists()


def test_a_directory_that_is_a_link_is_not_used(tmp_path, session):
    said = []
    state_directory().joinpath("forms").symlink_to(tmp_path)
    keeper = FormKeeper(said.append)
    for _ in range(3):
        keeper.keep(FormState(session, EDITED))
        keeper.flush()
    keeper.end()  # its thread would try again, in the directory of the next test
    assert len(said) == 1 and "it is a link" in said[0] and list(tmp_path.iterdir()) == []


def test_a_form_whose_copy_the_disk_refuses_is_not_counted_as_taken(session, monkeypatch):
    """Its file stays until the state that took it over is on the disk: an older state there is not enough."""
    keeper = FormKeeper(lambda message: None)
    keeper.keep(FormState(session, EDITED))
    assert keeper.flush() and len(forms()) == 1

    def refuse(*_):
        raise OSError(30, "Read-only file system")

    with monkeypatch.context() as patch:
        patch.setattr(kept_form, "write_private", refuse)
        keeper.keep(FormState(session, Flags(params="350M")))
        assert not keeper.flush() and not keeper.flush()
    assert json.loads(forms()[0].read_text())["fields"] != {"params": "350M"}
    assert keeper.flush() and json.loads(forms()[0].read_text())["fields"] == {"params": "350M"}
    keeper.end()
    assert forms() == []


def test_a_disk_that_cannot_be_written_offers_its_forms_all_the_same(monkeypatch):
    """Also for root, whom no mode stops: the refusal of each change is made up."""
    directory = state_directory("forms")
    whole = {"format": 1, "saved": "x", "directory": "", "file": None, "fields": {"params": "350M"}}
    (directory / "1-00.json").write_text(json.dumps(whole))
    (directory / "2-00.json").write_text("{")

    def refuse(*_, **__):
        raise OSError(30, "Read-only file system")

    for owner, name in ((os, "replace"), (os, "unlink"), (Path, "unlink")):
        monkeypatch.setattr(owner, name, refuse)
    real = os.open
    monkeypatch.setattr(os, "open", lambda p, f, *m, **k: refuse() if f & os.O_RDWR else real(p, f, *m, **k))
    (form,), messages = left_forms()
    assert form.flags.params == "350M" and len(messages) == 1 and "2-00.json" in messages[0]
    form.remove()
    (again,), _ = left_forms()
    again.leave()


def test_the_offer_is_taken_thrown_away_or_left(session):
    async def later(user):
        await user.until(lambda: isinstance(user.app.screen, OfferScreen))
        assert user.app.flags.params == "125M"  # never unasked
        await user.press("escape")

    async def taken(user):
        await user.until(lambda: isinstance(user.app.screen, OfferScreen))
        await user.press("enter")
        assert user.app.flags == Flags(params="350M") and "350M" in user.text("#command")
        await user.until(lambda: forms() == [user.app.keeper.path])
        await user.press("ctrl+z")
        assert user.app.flags.params == "125M"
        await user.pilot.press("ctrl+q")
        await user.until(lambda: forms() == [])

    async def thrown(user):
        await user.until(lambda: isinstance(user.app.screen, OfferScreen))
        await user.press("tab", "enter")
        await user.until(lambda: forms() == [])
        assert user.app.flags.params == "125M" and len(user.app.screen_stack) == 1

    path = killed_with("350M")
    play(session, later)
    assert forms() == [path]
    play(session, taken)
    killed_with("760M")
    play(session, thrown)


def test_a_crash_is_one_message_and_exit_code_1(session, monkeypatch, capsys):
    from tui.start import run_planner

    def fault(app):
        raise RuntimeError("an unforeseen state")

    async def typed(pilot):
        field = pilot.app.query_one("#params")
        field.value = "350M"
        await pilot.pause(0.05)
        await pilot.press("ctrl+o")

    monkeypatch.setattr(PlannerApp, "targets", fault)
    run = PlannerApp.run
    monkeypatch.setattr(PlannerApp, "run", lambda app: run(app, headless=True, size=(100, 30), auto_pilot=typed))
    code, message = run_planner(session)
    assert code == 1 and "RuntimeError: an unforeseen state" in message and len(message.splitlines()) == 3
    (kept,) = forms()
    assert str(kept) in message and json.loads(kept.read_text())["fields"]["params"] == "350M"
    crash = state_directory() / "crash.txt"
    assert str(crash) in message and "in fault" in crash.read_text() and stat.S_IMODE(crash.stat().st_mode) == 0o600
    assert "Traceback" not in "".join(capsys.readouterr())


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_signal_keeps_the_form_and_restores_the_terminal(number):
    with at_terminal(COMMAND, env={**os.environ, "TERM": "xterm-256color"}) as terminal:
        terminal.until(b"tokens/s")
        terminal.type(b"\x1b[F\x7f\x7f\x7f\x7f350M")
        terminal.until(b"--params 350M")
        terminal.process.send_signal(number)
        assert terminal.rest() == 128 + number
    assert terminal.seen.rindex(b"\x1b[?1049l") > terminal.seen.rindex(b"\x1b[?1049h")  # the first screen again
    assert b"ended by signal" in terminal.seen and b"Traceback" not in terminal.seen
    (kept,) = forms()
    assert json.loads(kept.read_text())["fields"]["params"] == "350M"
