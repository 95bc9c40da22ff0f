"""A disk that is really full: a small file system in memory, filled and emptied again."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from planner.config.run import RunConfig
from planner.errors import CheckpointError, FileError
from reference_trainer import execute as execution
from reference_trainer.loop import job as loop_job
from reference_trainer.metrics.metrics_file import MetricsFile
from reference_trainer.metrics.records import RunResult
from reference_trainer.metrics.run_directory import RunDirectory
from reference_trainer.step.options import RunOptions
from tests.reference_trainer.harm import events

MakeConfig = Callable[..., RunConfig]
Train = Callable[..., RunResult]
KIB = 2**10


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Callable[[int], Path]]:
    """`disk(bytes)` mounts a file system of this size, or gives the mounted one this size."""
    place, mounted = tmp_path / "disk", False
    place.mkdir()

    def sized(size: int) -> Path:
        nonlocal mounted
        options = f"size={size},{'remount' if mounted else 'nosuid'}"
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", options, "none", str(place)], capture_output=True, text=True
        )
        if done.returncode:
            pytest.skip(f"no file system can be mounted here: {done.stderr.strip()}")
        mounted = True
        return place

    try:
        yield sized
    finally:
        if mounted:
            subprocess.run(["umount", "-l", str(place)], check=True)


def filled(place: Path) -> Path:
    """A file that takes all the room there is."""
    filler = place / "filler"
    filler.write_bytes(bytes(shutil.disk_usage(place).free))
    assert shutil.disk_usage(place).free == 0
    return filler


def test_fault_39_a_row_is_written_whole_or_not_at_all(disk: Callable[[int], Path]) -> None:
    """Rows of three pages: a full disk takes one of them. What was refused is not written when the file is closed."""
    place = disk(64 * KIB)
    metrics = MetricsFile(place / "metrics.jsonl")
    metrics.add({"step": 1, "text": "a" * 3000})
    assert metrics.write() == ""
    before = metrics.path.read_bytes()
    filler = filled(place)
    with filler.open("r+b") as file:
        file.truncate(filler.stat().st_size - 4 * KIB)  # one page
    for step in (2, 3):
        metrics.add({"step": step, "text": "b" * 9000})
        assert "No space left" in metrics.write()
        assert metrics.path.read_bytes() == before
    filler.unlink()
    assert metrics.write() == ""
    rows = [json.loads(line) for line in metrics.path.read_text().splitlines()]
    assert [row["step"] for row in rows] == [1, 2, 3]


def test_fault_39_after_a_refused_start_the_same_command_works(
    disk: Callable[[int], Path], text: Path, tiny: MakeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(execution, "adapt_to_device", lambda config, device, log: config)
    place, options = disk(400 * KIB), RunOptions(device="cpu", data_path=text)

    def start(resume: bool = False) -> execution.Outcome:
        return execution.execute(tiny(steps=2), place / "run", resume, options, lambda line: None)

    with pytest.raises(FileError, match="the checkpoints of this run need"):
        start()
    assert (place / "run" / "config.toml").exists() and not (place / "run" / "events.jsonl").exists()
    with pytest.raises(CheckpointError, match="no run to resume") as refused:
        start(resume=True)
    assert "--out" in refused.value.remedy
    disk(40 * KIB * KIB)
    assert start().exit_code == 0 and events(place / "run")[-1] == "finished"
    with pytest.raises(FileError, match="already contains a run") as occupied:
        start()
    assert "--resume" in occupied.value.remedy


@pytest.mark.parametrize("room", [0, 8 * KIB, 64 * KIB])
def test_fault_39_wherever_the_start_was_refused(
    disk: Callable[[int], Path], text: Path, tiny: MakeConfig, monkeypatch: pytest.MonkeyPatch, room: int
) -> None:
    """No room for config.toml, for plan.json, or only for the first event."""
    monkeypatch.setattr(execution, "adapt_to_device", lambda config, device, log: config)
    monkeypatch.setattr("reference_trainer.train.check_space", lambda *_: None)
    place = disk(1024 * KIB)
    filler = filled(place)
    with filler.open("r+b") as file:
        file.truncate(filler.stat().st_size - room)
    arguments = tiny(steps=1), place / "run", False, RunOptions(device="cpu", data_path=text), lambda line: None
    with pytest.raises(FileError):
        if room == 64 * KIB:
            monkeypatch.setattr(RunDirectory, "event", lambda self, name, **facts: _refused(self, filler))
        execution.execute(*arguments)
    monkeypatch.undo()
    monkeypatch.setattr(execution, "adapt_to_device", lambda config, device, log: config)
    filler.unlink()
    disk(40 * KIB * KIB)
    assert execution.execute(*arguments).exit_code == 0


def _refused(directory: RunDirectory, filler: Path) -> None:
    directory.events.touch()
    raise FileError(f"cannot write to {directory.events}", why="No space left on device")


def test_fault_39_a_refused_metrics_write_is_a_failed_save(
    tiny: MakeConfig, train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three in a row end the run, as three saves do: nothing could be continued from what is computed meanwhile."""

    def refuse(self: MetricsFile) -> None:
        raise FileError("cannot write to metrics.jsonl", why="No space left on device")

    monkeypatch.setattr(loop_job.MetricsFile, "sync", refuse)
    with pytest.raises(FileError, match="3 checkpoints in a row could not be written") as caught:
        train(tiny(steps=20))
    assert caught.value.why == "No space left on device"
    assert events(tmp_path / "run").count("checkpoint failed") == 3


def test_a_folder_of_somebody_is_not_a_refused_start(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text("")
    with pytest.raises(FileError, match="is not empty"):
        execution.refuse_occupied(tmp_path)
    (tmp_path / "run.lock").touch()
    execution.refuse_occupied(tmp_path)
    (tmp_path / "notes.txt").touch()
    with pytest.raises(FileError, match="is not empty"):
        execution.refuse_occupied(tmp_path)
