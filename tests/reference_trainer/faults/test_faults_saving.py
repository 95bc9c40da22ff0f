"""Faults while a checkpoint is written: a failed save never counts as a checkpoint, and older checkpoints stay intact.

The numbers are those of the list of faults in docs/how-to/checkpoints.md.
"""

from __future__ import annotations

import errno
import json
import os
import resource
import shutil
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from planner.config.loop import CheckpointConfig
from planner.config.run import RunConfig
from planner.errors import FileError
from reference_trainer.checkpoint import atomic as publish
from reference_trainer.checkpoint import checkpoint, retention
from reference_trainer.metrics.records import RunResult
from reference_trainer.metrics.run_directory import RunDirectory
from tests.reference_trainer.harm import events, hashes, names, steps_logged

MakeConfig = Callable[..., RunConfig]
Train = Callable[..., RunResult]
STEPS = ["step-00000002", "step-00000004"]

# Every save is killed at every call that changes the disk, in a fork of a process that never loads PyTorch.
KILLED = textwrap.dedent(
    """
    import json, os, shutil, signal, sys
    from pathlib import Path
    from planner.config.loop import CheckpointConfig
    from reference_trainer.checkpoint.atomic import list_checkpoints, newest_valid, problem_with, publish
    from reference_trainer.checkpoint.retention import prune

    assert "torch" not in sys.modules
    CALLS = ("mkdir", "fsync", "rename", "unlink", "rmdir")

    def fill(new):
        (new / "model").write_bytes(b"m" * 9000)
        (new / "state").write_bytes(b"s")

    def save(folder, step):
        publish(folder, step, fill)
        prune(folder, step, CheckpointConfig(keep=1))

    def die_at(nth):
        seen = []
        def wrapped(real):
            def call(*args, **named):
                seen.append(real)
                if len(seen) == nth:
                    os.kill(os.getpid(), signal.SIGKILL)
                return real(*args, **named)
            return call
        for name in CALLS:
            setattr(os, name, wrapped(getattr(os, name)))

    root, outcomes = Path(sys.argv[1]), []
    for nth in range(1, 100):
        folder = root / str(nth) / "checkpoints"
        save(folder, 2)
        child = os.fork()
        if child == 0:
            die_at(nth)
            save(folder, 4)
            os._exit(0)
        survived = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        said = []
        newest = newest_valid(folder, said.append)
        said += filter(None, map(problem_with, list_checkpoints(folder)))  # also one that was being deleted
        strays = len(list(folder.glob(".tmp-*")))
        save(folder, 4)
        outcomes.append([newest.name, said, strays, sorted(p.name for p in folder.iterdir()), survived])
        if survived:
            break
    print(json.dumps(outcomes))
    """
)


def test_fault_01_a_kill_at_every_stage_of_a_save(tmp_path: Path, child_environment: dict[str, str]) -> None:
    command = [sys.executable, "-c", KILLED, str(tmp_path)]
    done = subprocess.run(command, env=child_environment, capture_output=True, text=True, timeout=60, check=True)
    outcomes = json.loads(done.stdout)
    assert len(outcomes) > 12 and [survived for *_, survived in outcomes] == [False] * (len(outcomes) - 1) + [True]
    assert all(said == [] for _, said, *_ in outcomes)  # whatever is there under a checkpoint's name is whole
    assert all(after == ["step-00000004"] for *_, after, _ in outcomes)  # the next save needs no help
    newest = [name for name, *_ in outcomes]
    published = newest.index("step-00000004")
    assert newest == ["step-00000002"] * published + ["step-00000004"] * (len(newest) - published)
    assert {strays for _, _, strays, *_ in outcomes[:published]} == {0, 1}


def test_fault_01_a_run_killed_in_a_save_goes_on(tiny: MakeConfig, train: Train, tmp_path: Path) -> None:
    whole = train(tiny(steps=4), "whole")
    train(tiny(steps=4), stop_after=2)
    folder = tmp_path / "run/checkpoints"
    shutil.copytree(folder / "step-00000002", folder / ".tmp-step-00000004")
    (folder / ".tmp-step-00000004/manifest.json").unlink()
    good, said = hashes(folder / "step-00000002"), list[str]()
    assert train(tiny(steps=4), said=said, resume=True).losses == whole.losses[2:]
    assert said[0] == "continues after step 2" and names(folder) == STEPS
    assert hashes(folder / "step-00000002") == good and steps_logged(tmp_path / "run") == [1, 2, 3, 4]


def test_fault_06_a_full_disk_is_noticed_before_the_first_step(
    tiny: MakeConfig, train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=4 * 2**20)  # four saves of 12 × 26,368 bytes + 1 MiB need more
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(FileError, match=r"has 4 MiB free; the checkpoints of this run need 5\.\d+ MiB"):
        train(tiny())
    assert names(tmp_path / "run") == ["run.lock"]
    assert train(tiny(checkpoint_every=None)).finished  # one save fits


@pytest.mark.parametrize("asynchronous", [False, True])
def test_fault_06_a_file_too_large_for_the_disk(
    tiny: MakeConfig, train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asynchronous: bool
) -> None:
    """The kernel itself refuses to let a file grow, in the middle of the second save."""
    real, before = checkpoint.save_file, resource.getrlimit(resource.RLIMIT_FSIZE)

    def limited(tensors: Any, path: Path) -> None:
        tight = ".tmp-step-00000004" in str(path)
        resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, before[1]) if tight else before)
        try:
            real(tensors, path)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)

    monkeypatch.setattr(checkpoint, "save_file", limited)
    said: list[str] = []
    config = tiny().model_copy(update={"checkpoints": CheckpointConfig(asynchronous=asynchronous)})
    result = train(config, said=said)
    assert result.finished and result.losses == train(tiny(), "whole").losses
    assert [e for e in events(tmp_path / "run") if e.startswith("checkpoint")] == [
        "checkpoint", "checkpoint failed", "checkpoint", "checkpoint"
    ]  # fmt: skip
    assert names(tmp_path / "run/checkpoints") == ["step-00000002", "step-00000006", "step-00000008"]
    (line,) = [line for line in said if "could not be written" in line]
    assert "earlier checkpoints are untouched" in line and "training continues with the weights in memory" in line


@pytest.mark.parametrize("blow", ["fsync", "rename"])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO, errno.EDQUOT])
def test_fault_07_a_save_that_the_disk_refuses_has_failed(tmp_path: Path, blow: str, number: int) -> None:
    folder = tmp_path / "run/checkpoints"
    publish.publish(folder, 2, lambda new: (new / "state").write_text("two"))
    good, real = hashes(folder), getattr(os, blow)

    def refuse(*args: Any) -> object:
        if (folder / ".tmp-step-00000004").exists():
            raise OSError(number, os.strerror(number))
        return real(*args)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(FileError, match="step 4 could not be written") as caught:
        patch.setattr(os, blow, refuse)
        publish.publish(folder, 4, lambda new: (new / "state").write_text("four"))
    assert os.strerror(number) in caught.value.why and names(folder) == STEPS[:1] and hashes(folder) == good


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES, errno.EDQUOT])
def test_fault_07_what_cannot_be_written_is_refused_before_the_first_step(
    tiny: MakeConfig, train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def refuse(path: Path) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(retention.os, "fsync", refuse)
    with pytest.raises(FileError, match="no checkpoint could be written") as caught:
        train(tiny())
    assert caught.value.why == os.strerror(number) and caught.value.remedy
    assert names(tmp_path / "run") == ["run.lock"]


def test_fault_08_keep_one_and_a_failing_save(
    tiny: MakeConfig, train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny(steps=6).model_copy(update={"checkpoints": CheckpointConfig(keep=1)})
    train(config, stop_after=2)
    folder, real = tmp_path / "run/checkpoints", checkpoint.save_file
    good, stood = hashes(folder), list[dict[str, str]]()

    def refuse(tensors: Any, path: Path) -> None:
        stood.append({name: sha for name, sha in hashes(folder).items() if name.startswith("step")})
        if "step-00000004" in str(path):
            raise OSError(errno.ENOSPC, "No space left on device")
        real(tensors, path)

    monkeypatch.setattr(checkpoint, "save_file", refuse)
    assert train(config, stop_after=5, resume=True).steps_done == 5
    assert len(stood) == 4 and all(found == good for found in stood)  # also while step 5 was written
    assert names(folder) == ["step-00000005"]


def test_fault_08_a_deletion_that_fails_is_said_and_training_goes_on(
    tiny: MakeConfig, train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny(steps=6).model_copy(update={"checkpoints": CheckpointConfig(keep=1)})
    real = os.rename

    def refuse(old: Path, new: Path) -> None:
        if Path(old).name == "step-00000002":
            raise OSError(errno.EACCES, "Permission denied")
        real(old, new)

    monkeypatch.setattr(os, "rename", refuse)
    said: list[str] = []
    assert train(config, said=said).finished
    assert said.count("step-00000002 could not be deleted: Permission denied") == 2
    assert names(tmp_path / "run/checkpoints") == ["step-00000002", "step-00000006"]


def test_fault_32_two_runs_cannot_share_a_directory(tiny: MakeConfig, train: Train, tmp_path: Path) -> None:
    with RunDirectory(tmp_path / "run"):
        for resume in (False, True):
            with pytest.raises(FileError, match="another run is using") as caught:
                train(tiny(), resume=resume)
            assert f"process {os.getpid()}" in caught.value.why
    assert train(tiny(steps=1)).finished


def test_fault_32_the_lock_of_a_dead_process_is_taken_over(tiny: MakeConfig, train: Train, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run/run.lock").write_text("999999\n")
    assert train(tiny(steps=1)).finished
    assert (tmp_path / "run/run.lock").read_text() == ""


def test_fault_36_a_rename_that_is_seen_late(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on NFS: the call returns, and the folder stands under its new name a moment later."""
    real = os.rename

    def late(old: Path, new: Path) -> None:
        def later() -> None:
            time.sleep(0.2)
            real(old, new)

        threading.Thread(target=later).start()

    monkeypatch.setattr(os, "rename", late)
    path = publish.publish(tmp_path / "checkpoints", 2, lambda new: (new / "state").write_text("two"))
    assert publish.problem_with(path) == "" and names(tmp_path / "checkpoints") == ["step-00000002"]


def test_fault_36_a_rename_that_is_never_seen_is_a_failed_save(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "rename", lambda old, new: None)
    monkeypatch.setattr(publish, "RENAME_TIMEOUT", 0.05)
    with pytest.raises(FileError, match="reads back differently"):
        publish.publish(tmp_path / "checkpoints", 2, lambda new: (new / "state").write_text("two"))
