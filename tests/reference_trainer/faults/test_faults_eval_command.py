"""What is executed never comes from a data file: a command is typed, or was recorded by this user when it was typed."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from planner.errors import FileError, PlanError
from planner.runs.directory import EXECUTION
from reference_trainer import execute as execution
from reference_trainer.step import command_record
from reference_trainer.step.command_record import records_folder
from reference_trainer.step.options import RunOptions, as_before, write_options
from tests.reference_trainer.step.spikes import MakeConfig

TYPED = "judge --secret 42"


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's state folder, empty."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return tmp_path / "state"


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    """The directory of a run that was started with a command."""
    directory = tmp_path / "run"
    directory.mkdir()
    write_options(directory, RunOptions(eval_command=TYPED), print)
    return directory


def command(directory: Path, typed: str | None = None, said: list[str] | None = None) -> str | None:
    """The command that `run --resume` would execute; "" asks for none."""
    log = (said if said is not None else []).append
    return as_before(directory, RunOptions(eval_command=typed), log).eval_command


def record(state: Path) -> Path:
    (found,) = (state / "gptplan/eval-commands").iterdir()
    return found


def change(directory: Path, **values: Any) -> None:
    file = directory / EXECUTION
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


def test_fault_46_a_command_in_a_run_directory_is_not_executed(
    tiny: MakeConfig, text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(execution, "adapt_to_device", lambda config, device, log: config)
    run, sprung, said = tmp_path / "run", tmp_path / "sprung", list[str]()

    def executed(resume: bool, **options: Any) -> None:
        chosen = RunOptions(**{"device": "cpu", "data_path": text} | options)
        execution.execute(tiny(steps=4, checkpoint_every=2), run, resume, chosen, said.append)

    executed(False, stop_after=2)
    change(run, eval_command=f"touch {sprung}; echo '{{}}'")
    with pytest.raises(FileError, match="must be given again") as caught:
        executed(True)
    assert "touch" in caught.value.why and "which is not executed" in caught.value.why and not sprung.exists()
    assert "--eval-command ''" in caught.value.remedy
    executed(True, eval_command="", stop_after=3)  # typed: none
    assert not sprung.exists() and not any("the eval command" in line for line in said)
    executed(True, eval_command=f"touch {sprung}; echo '{{}}'")
    assert sprung.exists() and any(f"touch {sprung}" in line and "with your rights" in line for line in said)


def test_fault_46_a_typed_command_is_recorded_for_its_user_only(run_dir: Path, state: Path) -> None:
    assert command(run_dir) == TYPED
    for path, mode in ((record(state), 0o600), (record(state).parent, 0o700)):
        assert stat.S_IMODE(path.stat().st_mode) == mode
    assert "secret" not in "".join(file.read_text() for file in run_dir.iterdir())  # which others may read
    assert command(run_dir, "another") == "another" == command(run_dir)  # typed with --resume: from then on
    assert command(run_dir, "") in ("", None) and not command(run_dir)  # none: from then on


@pytest.mark.parametrize(
    "harm",
    [
        lambda run, file: change(run, run_id="0" * 32),  # another run at the same place
        lambda run, file: file.unlink(),
        lambda run, file: file.write_text("[]"),
        lambda run, file: file.write_text("[" * 100_000),
        lambda run, file: file.write_text(json.dumps(json.loads(file.read_text()) | {"command": 7})),
        lambda run, file: file.chmod(0o666),  # anybody could have written it
        lambda run, file: file.parent.chmod(0o777),
        lambda run, file: file.rename(file.with_name("moved")) and file.symlink_to("moved"),
        lambda run, file: (file.unlink(), os.mkfifo(file, 0o600)),
        lambda run, file: (file.unlink(), file.mkdir()),
    ],
)
def test_fault_46_a_record_that_another_could_have_made_is_no_record(
    run_dir: Path, state: Path, harm: Callable[[Path, Path], object]
) -> None:
    harm(run_dir, record(state))
    with pytest.raises(FileError, match="must be given again"):
        command(run_dir)


def test_fault_46_a_record_of_another_user(run_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command_record.os, "geteuid", lambda: os.getuid() + 1)
    with pytest.raises(FileError, match="must be given again"):
        command(run_dir)


def test_fault_46_a_copy_of_a_run_has_no_command(run_dir: Path, tmp_path: Path) -> None:
    (tmp_path / "copy").mkdir()
    (tmp_path / "copy" / EXECUTION).write_text((run_dir / EXECUTION).read_text())
    with pytest.raises(FileError, match="must be given again"):
        command(tmp_path / "copy")
    (tmp_path / "link").symlink_to(run_dir)
    assert command(tmp_path / "link") == TYPED  # the same run under another name


def test_fault_46_a_home_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, state: Path) -> None:
    state.write_text("no folder")
    said: list[str] = []
    write_options(tmp_path, RunOptions(eval_command=TYPED), said.append)
    assert "cannot be recorded" in said[0] and "--resume will ask for it again" in said[0]
    with pytest.raises(FileError, match="must be given again"):
        command(tmp_path)


def test_fault_46_a_link_in_the_place_of_a_record_is_replaced_not_followed(run_dir: Path, state: Path) -> None:
    file, mine = record(state), state / "mine"
    mine.write_text("mine")
    file.unlink()
    file.symlink_to(mine)
    assert command(run_dir, "another") == "another" == command(run_dir)
    assert mine.read_text() == "mine" and not file.is_symlink()
    assert records_folder() == file.parent


def test_fault_46_nothing_else_in_the_file_is_imported_or_executed(run_dir: Path) -> None:
    """Trackers are names from a table; a device, a tokenizer and data are opened, never run."""
    from reference_trainer.device.device import pick_device
    from reference_trainer.metrics.trackers import check_trackers

    change(run_dir, trackers=["os", "antigravity"], device="cpu; touch x", eval_timeout=1)
    options = as_before(run_dir, RunOptions(), print)
    with pytest.raises(PlanError, match="unknown tracker 'os'"):
        check_trackers(options.trackers)
    with pytest.raises(PlanError, match="device"):
        pick_device(options.device)
