"""Signals outside of the training loop: no traceback, the exit code of a shell, nothing left behind, no run killed."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest

from gptplan.os_signals import quiet_signals
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
