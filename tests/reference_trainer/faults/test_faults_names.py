"""Names that the program makes, taken by somebody: no link is followed, and nothing is deleted that is not our own."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from planner.config.loop import CheckpointConfig
from planner.errors import FileError, PlanError
from planner.files import write_atomically
from planner.runs.directory import log_of, owner_of
from reference_trainer.checkpoint.atomic import MARK, delete_leftovers
from reference_trainer.checkpoint.export import export
from reference_trainer.checkpoint.retention import check_space
from reference_trainer.data.corpus.meta_file import META
from reference_trainer.data.corpus.prepare import PrepareOptions, prepare
from reference_trainer.metrics.trackers import Background
from reference_trainer.step.rollbacks import Rollback, save_rollbacks
from tests.reference_trainer.harm import FOURTH, SECOND, names
from tests.reference_trainer.step.spikes import MakeConfig, Train

Finished = Any  # conftest.Finished


@pytest.fixture
def mine(tmp_path: Path) -> Iterator[Path]:
    """A folder of the user with files of the names that we use; it must be as it was at the end of the test."""
    folder = tmp_path / "mine"
    (folder / "step-00000002").mkdir(parents=True)
    for name in ("file", "lock", META, "train_000000.bin", "manifest.json", "step-00000002/model.safetensors"):
        (folder / name).write_text("mine")
    before = contents(folder)
    yield folder
    assert contents(folder) == before


def contents(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): path.read_text() for path in sorted(folder.rglob("*")) if path.is_file()}


def prepared(tmp_path: Path) -> None:
    source = tmp_path / "source.txt"
    source.write_text("to be or not to be\n" * 50)
    prepare(PrepareOptions(sources=(source,), out=tmp_path / "p"))


# --- gptplan data -----------------------------------------------------------------------------------------------------


def test_fault_47_a_link_in_place_of_a_preparing_folder(tmp_path: Path, mine: Path) -> None:
    (tmp_path / ".p.preparing").symlink_to(mine)
    with pytest.raises(FileError, match="is in the place of a temporary directory") as caught:
        prepared(tmp_path)
    assert "it is a link" in caught.value.why and (tmp_path / ".p.preparing").is_symlink()


@pytest.mark.parametrize(
    ("files", "why"),
    [
        (["lock", "train_000000.bin", "notes.txt"], "'notes.txt'"),
        (["train_000000.bin", META], "it has no lock"),
        (["lock", ".hidden"], "'.hidden'"),
    ],
)
def test_fault_47_a_preparing_folder_that_is_not_ours(tmp_path: Path, files: list[str], why: str) -> None:
    work = tmp_path / ".p.preparing"
    work.mkdir()
    for name in files:
        (work / name).write_text("mine")
    with pytest.raises(FileError, match="in the place of a temporary directory") as caught:
        prepared(tmp_path)
    assert why in caught.value.why
    assert names(work) == sorted(files) and set(contents(work).values()) == {"mine"}


@pytest.mark.parametrize("name", ["lock", META, "train_000000.bin"])
def test_fault_47_a_link_in_a_preparing_folder(tmp_path: Path, mine: Path, name: str) -> None:
    work = tmp_path / ".p.preparing"
    work.mkdir()
    (work / "lock").touch()
    (work / name).unlink(missing_ok=True)
    (work / name).symlink_to(mine / "file")
    with pytest.raises(FileError, match="in the place of a temporary directory"):
        prepared(tmp_path)
    assert (work / name).is_symlink()


def test_fault_47_leftovers_of_our_own_are_in_nobodys_way(tmp_path: Path) -> None:
    work = tmp_path / ".p.preparing"
    work.mkdir()
    prepared(tmp_path)  # an empty folder
    shutil.rmtree(tmp_path / "p")
    work.mkdir()
    for name in ("lock", META, "val_000001.bin"):
        (work / name).write_text("old")
    prepared(tmp_path)
    assert META in names(tmp_path / "p") and "val_000001.bin" not in names(tmp_path / "p")
    assert not work.exists() and "lock" not in names(tmp_path / "p")


def test_fault_47_a_folder_that_got_its_name_while_another_waited(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other process has opened the lock, and gets it when the folder is published: it must not empty that."""
    from reference_trainer.data.corpus import writer

    real, held = writer._lock, list[int]()

    def published_first(file: Any, out: Path) -> None:
        if not held:
            held.append(1)
            os.unlink(tmp_path / ".p.preparing" / "lock")
            (tmp_path / ".p.preparing/train_000000.bin").write_text("published")
            os.rename(tmp_path / ".p.preparing", tmp_path / "p")
        real(file, out)

    monkeypatch.setattr(writer, "_lock", published_first)
    with pytest.raises(FileError, match="another process prepares"):
        prepared(tmp_path)
    assert contents(tmp_path / "p") == {"train_000000.bin": "published"}


# --- a run ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["run.lock", "metrics.jsonl", "events.jsonl", "checkpoints"])
@pytest.mark.parametrize("resume", [False, True])
def test_fault_47_a_link_where_a_run_writes(
    tiny: MakeConfig, train: Train, finished: Finished, tmp_path: Path, mine: Path, name: str, resume: bool
) -> None:
    run = finished.copy(tmp_path) if resume else tmp_path / "run"
    run.mkdir(exist_ok=True)
    if (run / name).is_dir():
        shutil.rmtree(run / name)
    else:
        (run / name).unlink(missing_ok=True)
    (run / name).symlink_to(mine if name == "checkpoints" else mine / "file")
    with pytest.raises(FileError, match="cannot write to the run directory") as caught:
        train(tiny(steps=4), resume=resume)
    assert "it is a link, which is not followed" in caught.value.why and name in caught.value.why
    assert (run / name).is_symlink()


@pytest.mark.parametrize("name", ["run.lock", "metrics.jsonl", "events.jsonl"])
def test_fault_47_a_pipe_where_a_run_writes(tiny: MakeConfig, train: Train, tmp_path: Path, name: str) -> None:
    (tmp_path / "run").mkdir()
    os.mkfifo(tmp_path / "run" / name)
    with pytest.raises(FileError, match="cannot write to the run directory") as caught:  # without waiting for a reader
        train(tiny(steps=1))
    assert "no ordinary file" in caught.value.why


def test_fault_47_a_lock_with_other_text_is_not_emptied(tiny: MakeConfig, train: Train, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    lock = tmp_path / "run/run.lock"
    lock.write_bytes(b"my notes \xff")
    with pytest.raises(FileError, match="is not the lock of a run"):
        train(tiny(steps=1))
    assert lock.read_bytes() == b"my notes \xff"


def test_fault_47_the_owner_of_a_run_is_not_asked_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_text(f"{os.getpid()}\n")
    (tmp_path / "run.lock").symlink_to(tmp_path / "elsewhere")
    assert owner_of(tmp_path) is None
    (tmp_path / "run.lock").unlink()
    os.mkfifo(tmp_path / "run.lock")
    assert owner_of(tmp_path) is None  # and does not wait


def test_fault_47_a_rewritten_log_goes_through_no_old_name(finished: Finished, tmp_path: Path, mine: Path) -> None:
    run = finished.copy(tmp_path)
    for name in (".tmp-metrics.jsonl", ".tmp-events.jsonl"):  # as older versions called them
        (run / name).symlink_to(mine / "file")
    shutil.rmtree(run / FOURTH)
    finished.resume(run)
    assert len((run / "metrics.jsonl").read_text().splitlines()) == 4
    assert (run / ".tmp-metrics.jsonl").is_symlink()


def test_fault_47_the_probe_of_the_disk(tiny: MakeConfig, tmp_path: Path, mine: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run/.tmp-probe").symlink_to(mine / "file")  # as older versions called it
    check_space(tmp_path / "run", tiny(), 1, 0)
    assert names(tmp_path / "run") == [".tmp-probe"]


def test_fault_47_a_tracker_writes_through_no_link(tmp_path: Path, mine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from reference_trainer.metrics import trackers

    class Silent:
        redraws = False

        def __init__(self, root: Path, facts: Any, first_step: int) -> None:
            (root / "silent").mkdir(exist_ok=True)
            (root / "silent/log").write_text("drawn")

        def draw(self, step: int, points: Any) -> None:
            pass

        def close(self) -> None:
            pass

    monkeypatch.setitem(trackers.BACKENDS, "silent", Silent)
    for place, target in (("silent", mine), ("silent.drawn", mine / "file")):
        (tmp_path / place).symlink_to(target)
        tracker = Background("silent", tmp_path, {}, 1)
        tracker.put(1, {"loss": 1.0})
        tracker.close(60)
        assert "it is a link" in tracker.failure_message()
        (tmp_path / place).unlink()


# --- checkpoints ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [".tmp-step-00000006", ".tmp-old-step-00000006", ".tmp-mine", ".tmp-step-6"])
@pytest.mark.parametrize("kind", ["link", "folder", "file"])
def test_fault_47_leftovers_that_are_not_ours_stay(tmp_path: Path, mine: Path, name: str, kind: str) -> None:
    place = tmp_path / "checkpoints"
    place.mkdir()
    if kind == "link":
        (place / name).symlink_to(mine)
    elif kind == "folder":
        shutil.copytree(mine, place / name)
    else:
        (place / name).write_text("mine")
    delete_leftovers(place)
    assert names(place) == [name]
    if kind == "folder":
        assert contents(place / name) == contents(mine)


@pytest.mark.parametrize("kind", ["marked", "of a manifest", "of an older version", "empty"])
def test_fault_47_leftovers_of_our_own_go(finished: Finished, tmp_path: Path, kind: str) -> None:
    run = finished.copy(tmp_path)
    left = (run / FOURTH).rename(run / "checkpoints/.tmp-step-00000004")
    if kind == "marked":
        (left / MARK).touch()
        (left / "manifest.json").unlink()
        (left / "anything").touch()
    elif kind == "of an older version":
        (left / "manifest.json").unlink()
        (left / ".tmpAb3dE5").touch()  # safetensors', killed while it wrote
    elif kind == "empty":
        for file in left.iterdir():
            file.unlink()
    delete_leftovers(run / "checkpoints")
    assert names(run / "checkpoints") == ["step-00000002"]


def test_fault_47_a_name_that_is_taken_fails_a_save_and_deletes_nothing(
    tiny: MakeConfig, train: Train, tmp_path: Path, mine: Path
) -> None:
    place = tmp_path / "run/checkpoints/.tmp-step-00000004"
    shutil.copytree(mine, place)
    said: list[str] = []
    assert train(tiny(steps=6), said=said).finished
    assert contents(place) == contents(mine)
    assert any("take .tmp-step-00000004 away, which gptplan did not make" in line for line in said)
    assert names(tmp_path / "run/checkpoints") == [place.name, "step-00000002", "step-00000006"]


def test_fault_47_a_checkpoint_with_a_note_in_it_is_not_deleted(tiny: MakeConfig, train: Train, tmp_path: Path) -> None:
    config = tiny(steps=6).model_copy(update={"checkpoints": CheckpointConfig(keep=1)})
    train(config, stop_after=2)
    note = tmp_path / "run/checkpoints/step-00000002/notes.txt"
    note.write_text("mine")
    whole, said = tmp_path / "whole", list[str]()
    shutil.copytree(tmp_path / "run/checkpoints/step-00000002", whole)
    note.unlink()
    train(config, resume=True, stop_after=3)
    shutil.copytree(whole, note.parent)
    assert train(config, resume=True, said=said).finished
    assert any("step-00000002 could not be deleted: it holds 'notes.txt', which gptplan" in line for line in said)
    assert names(note.parent) == names(whole)


# --- files that are written whole -------------------------------------------------------------------------------------


def test_fault_47_a_link_that_is_replaced_is_not_followed(tmp_path: Path, mine: Path) -> None:
    target = tmp_path / "out"
    writers: tuple[Callable[[], None], ...] = (
        lambda: write_atomically(target, "text", overwrite=True),
        lambda: save_rollbacks(target, [Rollback(1, 1, 1, 1.0)]),
    )
    for write in writers:
        target.symlink_to(mine / "file")
        write()
        assert not target.is_symlink()
        target.unlink()
    target.symlink_to(mine / "file")
    with pytest.raises(FileError, match="exists already"):
        write_atomically(target, "text")


def test_fault_47_an_export_through_a_link(finished: Finished, tmp_path: Path, mine: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    for target in (mine, mine / "file", empty, tmp_path / "nowhere"):
        (tmp_path / "out").symlink_to(target)
        with pytest.raises(PlanError):
            export(finished.root / "run" / SECOND, tmp_path / "out", print)
        assert (tmp_path / "out").is_symlink() and not list(empty.iterdir()) and not (tmp_path / "nowhere").exists()
        (tmp_path / "out").unlink()
    assert not list(tmp_path.glob(".tmp-*"))


def test_fault_47_the_log_of_a_run_that_the_planner_starts(tmp_path: Path, mine: Path) -> None:
    from tui.trainer import resume_run

    log_of(tmp_path / "run").symlink_to(mine / "file")
    with pytest.raises(FileError, match="the trainer cannot be started") as caught:
        resume_run(tmp_path / "run", ("true",))
    assert "it is a link" in caught.value.why


def test_fault_47_every_deletion_in_the_sources_is_known() -> None:
    """A tree is deleted only where this process made it in the same function: two places, each with its reason."""
    import reference_trainer as package

    root = Path(package.__file__).parent.parent
    sources = [s for name in ("planner", "gptplan", "reference_trainer", "tui") for s in (root / name).rglob("*.py")]
    found = sorted(str(s.relative_to(root)) for s in sources if "rmtree" in s.read_text(encoding="utf-8"))
    assert len(sources) > 200
    assert found == ["reference_trainer/checkpoint/atomic.py", "reference_trainer/checkpoint/export.py"]


def test_fault_47_a_manifest_makes_no_strangers_file_ours(finished: Finished, tmp_path: Path, mine: Path) -> None:
    run = finished.copy(tmp_path)
    left = (run / FOURTH).rename(run / "checkpoints/.tmp-step-00000004")
    (left / "linked").symlink_to(mine / "file")
    manifest = json.loads((left / "manifest.json").read_text())
    manifest["files"] |= {"linked": {}, "../../config.toml": {}, "../step-00000002": {}}
    (left / "manifest.json").write_text(json.dumps(manifest))
    delete_leftovers(run / "checkpoints")
    assert left.exists() and len(names(left)) == len(manifest["files"]) + 1 - 2
