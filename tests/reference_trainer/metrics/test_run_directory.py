"""One run per directory: the files that it writes and the result that it returns."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import torch

from planner.config.run import RunConfig
from planner.counts.parameters import parameters_of
from planner.errors import FileError
from reference_trainer.metrics import metrics_file as metrics_file_module
from reference_trainer.metrics.metrics_file import MetricsFile
from reference_trainer.metrics.records import RunResult
from reference_trainer.metrics.run_directory import RunDirectory

MakeConfig = Callable[..., RunConfig]
Train = Callable[..., RunResult]
KEYS = """step tokens valid_tokens loss perplexity lr grad_norm step_seconds data_seconds data_share tokens_per_second
mfu hfu allocated_bytes reserved_bytes updated spike loss_sigmas norm_sigmas clipped slow eta_seconds window_steps
window_seconds window_tokens_per_second window_idle_seconds power_watts joules_per_token device_used_bytes
alloc_retries"""


def test_a_failed_run_gives_its_lock_back(tiny: MakeConfig, train: Train, tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), RunDirectory(tmp_path / "run"):
        _ = 1 / 0
    assert train(tiny(steps=1)).finished


def test_a_file_in_the_place_of_the_directory_is_refused(tiny: MakeConfig, train: Train, tmp_path: Path) -> None:
    (tmp_path / "run").write_text("mine")
    with pytest.raises(FileError, match="cannot write to the run directory"):
        train(tiny())
    assert (tmp_path / "run").read_text() == "mine"


def test_a_filesystem_without_locks_is_not_blamed_on_another_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr("fcntl.flock", fail)
    with pytest.raises(FileError, match="cannot be locked"), RunDirectory(tmp_path / "run"):
        pass


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device that is always full is Linux's")
def test_fault_31_a_full_disk_for_metrics_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics_file_module, "open_own", os.open)  # which is for ordinary files
    metrics_file = MetricsFile(Path("/dev/full"))
    metrics_file.add({"step": 1})
    assert "No space left" in metrics_file.write()
    with pytest.raises(FileError, match="cannot write to /dev/full"):
        metrics_file.sync()


def test_fault_31_rows_wait_for_the_disk_and_none_is_lost_or_torn(
    tiny: MakeConfig, train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk is full in steps 3 to 5, and the file is deleted after the first: training ends with every later row."""
    write, calls, said = MetricsFile.write, list[int](), list[str]()

    def refusing(self: MetricsFile) -> str:
        calls.append(1)
        return "[Errno 28] No space left on device" if 3 <= len(calls) <= 5 else write(self)

    monkeypatch.setattr(MetricsFile, "write", refusing)
    result = train(tiny(checkpoint_every=None), said=said)
    assert result.finished and sum("metrics.jsonl cannot be written" in line for line in said) == 1
    found = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in found] == list(range(1, 9))
    assert [row["loss"] for row in found] == result.losses


def test_half_a_row_is_taken_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    metrics_file = MetricsFile(tmp_path / "metrics.jsonl")
    metrics_file.add({"step": 1})
    assert metrics_file.write() == ""
    metrics_file.add({"step": 2})

    class Torn(io.FileIO):
        def write(self, content: Any) -> int:
            super().write(bytes(content)[:4])
            raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fdopen", lambda handle, mode, buffering: Torn(handle, mode))
        assert "No space left" in metrics_file.write()
    assert metrics_file.path.read_text() == '{"step": 1}\n'
    assert metrics_file.write() == ""
    assert metrics_file.path.read_text() == '{"step": 1}\n{"step": 2}\n'


def test_metrics_have_every_key_and_null_for_the_unknown(tiny: MakeConfig, train: Train, tmp_path: Path) -> None:
    result = train(tiny(), flops_per_step=1000, peak_flops=1e6)
    found = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert all(list(row) == KEYS.split() for row in found) and len(found) == 8
    assert [row["step_seconds"] for row in found] == result.step_seconds
    for row in found:
        assert row["tokens_per_second"] * row["step_seconds"] == pytest.approx(128)
        assert row["mfu"] * row["step_seconds"] == pytest.approx(1e-3)
        assert row["allocated_bytes"] is None and row["reserved_bytes"] is None  # counters that a CPU has not
    train(tiny(steps=1), "bare")
    assert json.loads((tmp_path / "bare/metrics.jsonl").read_text())["mfu"] is None


def test_the_result_says_what_was_done(tiny: MakeConfig, train: Train) -> None:
    config = tiny()
    result = train(config)
    assert (result.device, result.torch_version) == ("cpu", torch.__version__) and result.device_name
    assert result.parameters == parameters_of(config.model).total
    assert (result.steps_done, result.tokens_done, result.finished, result.exit_code) == (8, 8 * 128, True, 0)
    assert len(result.step_seconds) == len(result.losses) == len(result.grad_norms) == 8
    assert min(result.step_seconds) > 0
    cuda = (result.peak_allocated_bytes, result.peak_reserved_bytes, result.peak_requested_bytes)
    assert cuda == (None, None, None) and result.device_used_bytes is None
    assert 2**26 < result.peak_rss_bytes < 2**36  # PyTorch alone takes more than 64 MiB
    assert result.checkpoint_bytes is not None and 12 * result.parameters < result.checkpoint_bytes


def test_events_tell_the_story(tiny: MakeConfig, train: Train, tmp_path: Path) -> None:
    train(tiny(), stop_after=3)
    train(tiny(), resume=True)
    events = [json.loads(line) for line in (tmp_path / "run/events.jsonl").read_text().splitlines()]
    story = [(event["event"], event["step"]) for event in events]
    saved = [("checkpoint", step) for step in (2, 3, 4, 6, 8)]
    assert story == [("start", 0), *saved[:2], ("stopped", 3), ("resume", 3), *saved[2:], ("finished", 8)]
    times = [datetime.fromisoformat(event["time"]) for event in events]
    assert times == sorted(times) and times[0].utcoffset() is not None
    assert events[0]["torch"] == torch.__version__ and events[0]["data_fingerprint"]
