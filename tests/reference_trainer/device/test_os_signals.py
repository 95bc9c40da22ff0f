"""A process that is asked to stop saves and exits with a code of its own; a killed one loses no finished checkpoint."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from planner.config.run import RunConfig
from reference_trainer.device.os_signals import StopSignals
from reference_trainer.metrics.records import RunResult
from reference_trainer.step.step import StepContext, train_step
from reference_trainer.step.step_results import PendingStep

MakeConfig = Callable[..., RunConfig]
Train = Callable[..., RunResult]
RunChild = Callable[..., subprocess.CompletedProcess[str]]


# The run sends the signals to itself in the middle of step 5, so that no test depends on how fast the machine is.
CHILD = textwrap.dedent(
    """
    import os, signal, sys
    from pathlib import Path
    from planner.config.run import RunConfig
    from reference_trainer import train
    from reference_trainer.step import batch_source
    from reference_trainer.step.options import RunOptions

    config, out, text, *names = sys.argv[1:]
    real, calls = batch_source.batch, []

    def batch(data, config, start, count):
        calls.append(start)
        if len(calls) == 10:  # the second micro-batch of step 5
            for name in names:
                os.kill(os.getpid(), signal.Signals[name])
        return real(data, config, start, count)

    batch_source.batch = batch
    options = RunOptions(device="cpu", data_path=Path(text))
    result = train.run(RunConfig.model_validate_json(config), Path(out), options, lambda line: print(line, flush=True))
    sys.exit(result.exit_code)
    """
)


@pytest.fixture
def run_child(tmp_path: Path, text: Path, child_environment: dict[str, str]) -> RunChild:
    """Runs a config in another process, which sends itself the named signals."""

    def call(config: RunConfig, *names: str) -> subprocess.CompletedProcess[str]:
        arguments = [config.model_dump_json(), str(tmp_path / "run"), str(text), *names]
        command = [sys.executable, "-c", CHILD, *arguments]
        return subprocess.run(command, env=child_environment, capture_output=True, text=True, timeout=60, check=False)

    return call


def steps_in(file: Path) -> list[int]:
    return [json.loads(line)["step"] for line in file.read_text().splitlines()]


def checkpoints(out: Path) -> list[str]:
    return sorted(path.name for path in (out / "checkpoints").iterdir())


@pytest.mark.parametrize(("name", "code"), [("SIGINT", 130), ("SIGTERM", 143)])
def test_fault_21_a_signal_ends_the_run_after_its_step(
    tiny: MakeConfig, train: Train, tmp_path: Path, run_child: RunChild, name: str, code: int
) -> None:
    config = tiny()
    child = run_child(config, name)
    assert child.returncode == code, child.stderr
    assert f"{name}: stopped after step 5; continue with --resume" in child.stdout
    assert checkpoints(tmp_path / "run")[-1] == "step-00000005"
    assert steps_in(tmp_path / "run/metrics.jsonl") == [1, 2, 3, 4, 5]
    assert train(config, resume=True).losses == train(config, "whole").losses[5:]
    assert steps_in(tmp_path / "run/metrics.jsonl") == list(range(1, 9))


def test_fault_21_a_second_signal_ends_it_at_once(tiny: MakeConfig, tmp_path: Path, run_child: RunChild) -> None:
    child = run_child(tiny(), "SIGINT", "SIGTERM")
    assert child.returncode == 143, child.stderr
    assert "stopped after" not in child.stdout
    assert checkpoints(tmp_path / "run") == ["step-00000002", "step-00000004"]
    assert steps_in(tmp_path / "run/metrics.jsonl") == [1, 2, 3, 4]


def test_a_killed_run_goes_on_from_its_last_checkpoint(
    tiny: MakeConfig, train: Train, tmp_path: Path, run_child: RunChild
) -> None:
    """SIGKILL in a step; the lock of the dead is no bar. In a save: test_trainer_checkpoint.py."""
    config, said = tiny(), list[str]()
    child = run_child(config, "SIGKILL")
    assert child.returncode == -signal.SIGKILL, child.stderr
    assert checkpoints(tmp_path / "run") == ["step-00000002", "step-00000004"]
    assert (tmp_path / "run/run.lock").read_text().strip().isdecimal()
    result = train(config, said=said, resume=True)
    assert said[0] == "continues after step 4"
    assert result.losses == train(config, "whole").losses[4:]
    assert steps_in(tmp_path / "run/metrics.jsonl") == list(range(1, 9))


@pytest.mark.parametrize(("stop_after", "finished", "code"), [(None, True, 0), (1, False, 143)])
def test_fault_21_a_signal_in_the_last_step_is_no_interruption(
    tiny: MakeConfig, train: Train, monkeypatch: pytest.MonkeyPatch, stop_after: int | None, finished: bool, code: int
) -> None:
    def signalled(context: StepContext, step: int) -> PendingStep:
        signal.raise_signal(signal.SIGTERM)
        return train_step(context, step)

    monkeypatch.setattr("reference_trainer.train.train_step", signalled)
    result = train(tiny(steps=1 if finished else 2), stop_after=stop_after)
    assert (result.finished, result.exit_code, result.steps_done) == (finished, code, 1)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_old_handlers_come_back(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with pytest.raises(ZeroDivisionError), StopSignals() as watch:
        assert signal.getsignal(number) != before and watch.exit_code == 0
        signal.raise_signal(number)
        assert watch.received is number and watch.exit_code == 128 + number
        _ = 1 / 0
    assert signal.getsignal(number) == before


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1])
def test_an_ignored_signal_stays_ignored(number: signal.Signals) -> None:
    """As under nohup (SIGHUP) and for a command that a script starts with & (SIGINT)."""
    before = signal.signal(number, signal.SIG_IGN)
    try:
        with StopSignals() as watch:
            assert signal.getsignal(number) is signal.SIG_IGN
            signal.raise_signal(number)
            assert not watch.stopping() and not watch.take_save()
        assert signal.getsignal(number) is signal.SIG_IGN
    finally:
        signal.signal(number, before)


def test_the_second_signal_does_not_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    ended: list[int] = []
    monkeypatch.setattr("os._exit", ended.append)
    with StopSignals():
        signal.raise_signal(signal.SIGTERM)
        assert ended == []
        signal.raise_signal(signal.SIGINT)
    assert ended == [130]


def test_outside_the_main_thread_signals_are_left_alone() -> None:
    seen: list[object] = []
    before = signal.getsignal(signal.SIGTERM)

    def enter() -> None:
        with StopSignals():
            seen.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert seen == [before]
