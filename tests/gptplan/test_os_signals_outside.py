"""Signals outside of the training loop: no traceback, the exit code of a shell, nothing left behind, no run killed."""

from __future__ import annotations

import importlib
import os
import signal
import sys
import time
import weakref
from pathlib import Path
from typing import Any

import pytest

from benchmarks.interrupts import ENDED, PLAN, interrupted
from gptplan import os_signals
from gptplan.os_signals import quiet_signals
from gptplan.start import start
from tests.gptplan.calling import BASE, Call

ALL = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)


@pytest.mark.parametrize("number, code", [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_fault_44_ctrl_c_in_a_computation_is_no_traceback(
    call: Call, monkeypatch: pytest.MonkeyPatch, number: signal.Signals, code: int
) -> None:
    before = [signal.getsignal(one) for one in ALL]
    monkeypatch.setattr("planner.plan.estimate", lambda *_, **__: signal.raise_signal(number))
    said = call("estimate", *BASE)
    assert (said.code, said.out, said.err) == (code, "", "")
    assert [signal.getsignal(one) for one in ALL] == before


def test_fault_44_what_was_begun_is_tidied_up(call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "notes.txt").write_text("a line\n" * 100)
    monkeypatch.setattr(
        "reference_trainer.data.corpus.prepare.write_meta", lambda *_: signal.raise_signal(signal.SIGTERM)
    )
    said = call("data", str(tmp_path / "notes.txt"), "-o", str(tmp_path / "out"))
    assert (said.code, said.err) == (143, "")
    assert [path.name for path in tmp_path.iterdir() if "out" in path.name] == []


@pytest.mark.parametrize("command", ["run", "demo"])
def test_fault_44_no_run_is_killed(command: str) -> None:
    with quiet_signals(command):
        signal.raise_signal(signal.SIGHUP)
        signal.raise_signal(signal.SIGUSR1)
        with pytest.raises(SystemExit) as ended:
            signal.raise_signal(signal.SIGINT)
    assert ended.value.code == 130


def test_what_is_ignored_stays_ignored_and_the_terminal_planner_has_its_own() -> None:
    def ours(*_: Any) -> None:
        """Somebody's handler."""

    before = signal.signal(signal.SIGHUP, signal.SIG_IGN), signal.signal(signal.SIGINT, ours)
    try:
        with quiet_signals("run"):
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
        with quiet_signals("tui"):
            assert signal.getsignal(signal.SIGINT) is ours
    finally:
        signal.signal(signal.SIGHUP, before[0])
        signal.signal(signal.SIGINT, before[1])


# --- while the program is imported ------------------------------------------------------------------------------------


@pytest.mark.parametrize("seconds", [0.0, 0.03, 0.06, 0.1, 0.2, 0.4])
def test_fault_44_ctrl_c_while_the_program_is_imported(tmp_path: Path, seconds: float) -> None:
    """A process of its own; 200 random moments are in benchmarks/results/interrupts.json."""
    code, said = interrupted(PLAN, seconds, tmp_path)
    assert code in ENDED and said == ""


def test_fault_44_the_first_act_is_to_be_quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before that only modules are imported that Python itself has loaded, or that take no time."""
    seen: list[Any] = []
    monkeypatch.setattr("gptplan.app.main", lambda: seen.append(signal.getsignal(signal.SIGINT)))
    before = signal.getsignal(signal.SIGINT)
    try:
        for inherited, expected in (
            (signal.default_int_handler, signal.SIG_DFL),
            (signal.SIG_IGN, signal.SIG_IGN),  # `nohup`, or a shell that starts it in the background
        ):
            signal.signal(signal.SIGINT, inherited)
            start()
            assert seen.pop() is expected
            with quiet_signals("wizard"):  # Ctrl-C is KeyboardInterrupt there
                ours = signal.SIG_IGN if inherited is signal.SIG_IGN else signal.default_int_handler
                assert signal.getsignal(signal.SIGINT) is ours
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.fixture
def interrupted_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a module that gets a signal while it is imported, and makes another error of any exception."""
    text = "import signal\ntry:\n    signal.raise_signal(signal.SIGINT)\nexcept BaseException:\n    raise ImportError\n"
    (tmp_path / "signalled_module.py").write_text(text + "DONE = True\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "signalled_module", raising=False)
    return "signalled_module"


def until_it_comes() -> None:
    end = time.monotonic() + 60
    while time.monotonic() < end:
        time.sleep(0.01)


def test_fault_44_a_signal_in_an_import_waits_for_its_end(interrupted_module: str) -> None:
    with pytest.raises(SystemExit) as ended, quiet_signals("data"):
        importlib.import_module(interrupted_module)
        until_it_comes()
    assert ended.value.code == 130 and sys.modules[interrupted_module].DONE


def test_fault_44_a_signal_in_an_import_of_a_command_ends_it_at_once(
    interrupted_module: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    codes: list[int] = []

    def ended(code: int) -> None:
        codes.append(code)
        raise SystemExit  # which does not return either

    monkeypatch.setattr(os, "_exit", ended)
    monkeypatch.setattr(os_signals, "_PACKAGE", os.path.dirname(importlib.__file__ or ""))  # import_module's own file
    with pytest.raises(ImportError), quiet_signals("data"):
        importlib.import_module(interrupted_module)
    assert codes == [130]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_fault_44_a_signal_in_a_callback_is_not_lost(
    number: signal.Signals, capsys: pytest.CaptureFixture[str]
) -> None:
    class Thing:
        """Something with a weak reference."""

    thing = Thing()
    reference = weakref.ref(thing, lambda _: signal.raise_signal(number))
    with pytest.raises(SystemExit) as ended, quiet_signals("data"):
        del thing
        until_it_comes()
    assert reference() is None and ended.value.code == 128 + number
    assert capsys.readouterr() == ("", "")
