"""Faults of clocks, allocators, trackers and logs: training continues, and its reports stay correct."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from planner.config.run import RunConfig
from planner.errors import InputError, MissingExtraError
from reference_trainer.device.device import AllocatorState
from reference_trainer.metrics import log_window, metrics_file, trackers
from reference_trainer.metrics.records import RunResult

MakeConfig = Callable[..., RunConfig]
Train = Callable[..., RunResult]

# The process stops itself (SIGSTOP) at the 20th call of one function, so that no test depends on the machine's speed.
STOPPED = """
import importlib, os, signal
from pathlib import Path
import torch
from tests.reference_trainer.conftest import config_of
from reference_trainer.step.options import RunOptions
from reference_trainer.train import run

owner, name = importlib.import_module({module!r}), {name!r}
for part in name.split(".")[:-1]:
    owner = getattr(owner, part)
name = name.split(".")[-1]
real, calls = getattr(owner, name), []

def stopping(*args):
    calls.append(1)
    if len(calls) == 20:
        os.kill(os.getpid(), signal.SIGSTOP)
    return real(*args)

setattr(owner, name, stopping)
torch.set_num_threads(1)
options = RunOptions(device="cpu", data_path=Path({data!r}))
run(config_of(steps=24, checkpoint_every=None), Path({out!r}), options, lambda line: print(line, flush=True))
"""


def objects(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def wait_until_stopped(process: int) -> bool:
    """True when the process has stopped; False if it has ended, or did neither in two minutes."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        found, status = os.waitpid(process, os.WUNTRACED | os.WNOHANG)
        if found:
            return os.WIFSTOPPED(status)
        time.sleep(0.02)
    return False


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("reference_trainer.step.batch_source", "batch"),  # in a step
        pytest.param("reference_trainer.train", "train_step", marks=pytest.mark.soak),  # between two steps
        pytest.param("reference_trainer.step.step_results", "PendingSteps.read", marks=pytest.mark.soak),  # at the end
        ("reference_trainer.metrics.metrics_file", "MetricsFile.write"),  # between two log windows
    ],
)
def test_fault_22_a_stopped_process_continues_and_the_gap_is_flagged(
    tmp_path: Path, text: Path, child_environment: dict[str, str], module: str, name: str
) -> None:
    """Wherever the stop falls, it is in the seconds of a step or in the idle seconds of a log window."""
    out = tmp_path / "run"
    code = STOPPED.format(out=str(out), data=str(text), module=module, name=name)
    child = subprocess.Popen([sys.executable, "-c", code], env=child_environment, stdout=subprocess.PIPE, text=True)
    assert wait_until_stopped(child.pid)
    time.sleep(2.0)
    os.kill(child.pid, signal.SIGCONT)
    said, _ = child.communicate(timeout=120)
    assert child.returncode == 0
    rows = objects(out / "metrics.jsonl")
    assert [row["step"] for row in rows] == list(range(1, 25))
    (told,) = [e for e in objects(out / "events.jsonl") if e["event"] == "slow step" and e["seconds"] > 1.8]
    assert told["usual_seconds"] < 1.0 and told["step"] in (10, 20, 21)
    assert "the process was stopped, or something else used the machine" in said
    row = rows[told["step"] - 1]
    assert row["window_seconds"] > 1.8
    assert row["slow"] == (name == "batch") and (row["window_idle_seconds"] > 1.8) == (name != "batch")


def test_fault_23_a_clock_that_jumps_changes_no_duration(
    tiny: MakeConfig, train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, calls = time.time, list[int]()

    def jumping() -> float:
        calls.append(1)
        return real() + (3600.0 if len(calls) % 2 else -3600.0)

    monkeypatch.setattr(time, "time", jumping)
    result = train(tiny(steps=6), time_limit=3000.0)  # an hour ahead would be the end of the time
    assert result.steps_done == 6
    keys = ("step_seconds", "data_seconds", "window_seconds", "window_idle_seconds", "eta_seconds")
    rows = objects(tmp_path / "run/metrics.jsonl")
    assert all(0.0 <= row[key] < 1800.0 for row in rows for key in keys)
    saved = [e["seconds"] for e in objects(tmp_path / "run/events.jsonl") if e["event"] == "checkpoint"]
    assert saved and all(0.0 < seconds < 1800.0 for seconds in saved)


def test_fault_27_a_thrashing_allocator_is_told_once_and_counted(
    tiny: MakeConfig, train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts = iter([5, 5, 7, 7, 9, 9])  # before the run the process had 5
    monkeypatch.setattr(
        "reference_trainer.metrics.log_window.read_allocator", lambda _: AllocatorState(retries=next(counts))
    )
    said: list[str] = []
    train(tiny(steps=5), said=said)
    assert [row["alloc_retries"] for row in objects(tmp_path / "run/metrics.jsonl")] == [0, 2, 2, 4, 4]
    told = [e for e in objects(tmp_path / "run/events.jsonl") if e["event"] == "allocator retries"]
    assert [(e["step"], e["count"]) for e in told] == [(2, 2), (4, 4)]
    assert len([line for line in said if "allocator ran out of memory 2 times" in line]) == 1
    assert not any("4 times" in line for line in said)


def test_fault_27_the_count_is_the_allocators_own(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    from reference_trainer.device.device import read_allocator

    monkeypatch.setattr(torch.cuda, "memory_stats", lambda _: {"num_alloc_retries": 3})
    assert read_allocator(torch.device("cuda")).retries == 3
    assert read_allocator(torch.device("cpu")).retries is None


class Bad:
    """A tracker that fails, or hangs, at one stage."""

    redraws = True

    def __init__(self, stage: str, error: BaseException | None) -> None:
        self.stage, self.error = stage, error
        self.hang = threading.Event()
        self.drawn: list[int] = []

    def __call__(self, root: Path, facts: Any, first_step: int) -> Bad:
        self.reached("begin")
        return self

    def reached(self, stage: str) -> None:
        if stage == self.stage:
            if self.error is None:
                self.hang.wait(60)
            else:
                raise self.error

    def draw(self, step: int, points: dict[str, float]) -> None:
        if step == 3:
            self.reached("draw")
        self.drawn.append(step)

    def close(self) -> None:
        self.reached("close")


@pytest.mark.parametrize("stage", ["begin", "draw", "close"])
@pytest.mark.parametrize(
    "error", [OSError("database is locked"), SystemExit(1), None], ids=["raises", "exits", "hangs"]
)
def test_fault_31_no_tracker_hurts_the_run(
    tiny: MakeConfig,
    train: Train,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    stage: str,
    error: BaseException | None,
) -> None:
    bad, good, said = Bad(stage, error), Bad("never", None), list[str]()
    monkeypatch.setattr(trackers, "BACKENDS", {"bad": bad, "good": good})
    monkeypatch.setattr(trackers, "check_trackers", lambda names: None)
    monkeypatch.setattr("reference_trainer.train.check_trackers", lambda names: None)
    monkeypatch.setattr(trackers, "CLOSE_SECONDS", 0.2)
    monkeypatch.setattr(trackers, "QUEUED", 4)
    try:
        result = train(tiny(steps=12, checkpoint_every=None), said=said, trackers=("bad", "good"))
    finally:
        bad.hang.set()
    assert result.finished and result.steps_done == 12
    assert [row["step"] for row in objects(tmp_path / "run/metrics.jsonl")] == list(range(1, 13))
    told = [line for line in said if "tracker bad is turned off" in line]
    assert len(told) == 1 and "metrics.jsonl has all rows" in told[0]
    if isinstance(error, OSError):
        assert "OSError: database is locked" in told[0]
    assert good.drawn == list(range(1, 13)) or "tracker good is turned off" in "".join(said)  # 4 rows behind, at worst


def test_fault_31_a_torn_line_and_a_deleted_log_leave_each_step_once(
    tiny: MakeConfig, train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    metrics = tmp_path / "run/metrics.jsonl"
    train(tiny(steps=8, checkpoint_every=2), stop_after=5)
    whole = metrics.read_bytes()
    metrics.write_bytes(whole + whole.splitlines(keepends=True)[-1][:40])  # the crash came while a row was written
    train(tiny(steps=8, checkpoint_every=2), resume=True, stop_after=7)
    assert [row["step"] for row in objects(metrics)] == list(range(1, 8))
    metrics.unlink()  # whoever deletes it loses the old rows and no new one
    train(tiny(steps=8, checkpoint_every=2), resume=True)
    assert [row["step"] for row in objects(metrics)] == [8]


def test_fault_31_a_full_disk_for_the_logs_loses_no_line(
    tiny: MakeConfig, train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From step 3 to step 6 the disk takes no line of either log; slow steps of 3 and 5 are events then."""
    open_file, seen, full = metrics_file.open_own, list[int](), [False]

    def refuse(path: str | Path, flags: int, *args: Any, **kwargs: Any) -> int:
        if full[0] and Path(path).name in ("metrics.jsonl", "events.jsonl") and flags & os.O_APPEND:
            raise OSError(errno.ENOSPC, "No space left on device")
        return open_file(path, flags, *args, **kwargs)

    rows = log_window.LogWindow.rows

    def counted(self: log_window.LogWindow, steps: Any, *rest: Any) -> Any:
        seen.extend(step.step for step in steps)
        full[0] = 3 <= seen[-1] <= 6
        if seen[-1] in (3, 5, 7):
            self.event("slow step", step=seen[-1], seconds=9.0, usual_seconds=1.0)
        return rows(self, steps, *rest)

    monkeypatch.setattr(metrics_file, "open_own", refuse)
    monkeypatch.setattr(log_window.LogWindow, "rows", counted)
    said: list[str] = []
    assert train(tiny(checkpoint_every=None), said=said).finished
    assert [row["step"] for row in objects(tmp_path / "run/metrics.jsonl")] == list(range(1, 9))
    told = objects(tmp_path / "run/events.jsonl")
    assert [e["step"] for e in told if e["event"] == "slow step"] == [3, 5, 7]
    assert len([line for line in said if "metrics.jsonl cannot be written" in line]) == 1


def test_fault_31_trackers_are_checked_before_the_run(
    tiny: MakeConfig, train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(InputError, match="unknown tracker 'tensorbord'") as unknown:
        train(tiny(), trackers=("tensorbord",))
    assert unknown.value.remedy == "one of: tensorboard"
    monkeypatch.setattr(trackers, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError) as missing:
        train(tiny(), trackers=("wandb",))
    assert missing.value.remedy == "pip install 'gptplan[wandb]'"
    assert not (tmp_path / "run").exists()
