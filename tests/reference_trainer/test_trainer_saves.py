"""A save is whole or absent, a damaged checkpoint is stepped over, and nothing that is loaded can run code."""

from __future__ import annotations

import ast
import errno
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import reference_trainer
from planner.config import RunConfig
from planner.errors import CheckpointError, FileError
from reference_trainer import publish
from reference_trainer.records import RunResult

MakeConfig = Callable[..., RunConfig]
Train = Callable[..., RunResult]
PAYLOAD = ("model.safetensors", "optimizer.safetensors", "state.json")


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "checkpoints").iterdir())


def contents(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in PAYLOAD}


def cut(file: Path) -> None:
    """Drop the second half of a file."""
    os.truncate(file, file.stat().st_size // 2)


def empty(file: Path) -> None:
    """Drop all of a file."""
    os.truncate(file, 0)


def flip(file: Path) -> None:
    """Turn over one bit in the middle of a file."""
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


@pytest.mark.parametrize("file", PAYLOAD)
@pytest.mark.parametrize("harm", [flip, cut, empty, Path.unlink])
def test_a_damaged_checkpoint_is_stepped_over(
    tiny: MakeConfig, train: Train, tmp_path: Path, harm: Callable[[Path], None], file: str
) -> None:
    config, said = tiny(steps=4), list[str]()
    whole = train(config)
    newest = tmp_path / "run/checkpoints/step-00000004"
    good = contents(newest)
    harm(newest / file)
    result = train(config, said=said, resume=True)
    assert said[0].startswith("step-00000004 is damaged (") and "trying the one before it" in said[0]
    assert said[1] == "continues after step 2"
    assert result.finished and result.losses == whole.losses[2:]
    assert names(tmp_path / "run") == ["step-00000002", "step-00000004"]
    assert contents(newest) == good


@pytest.mark.parametrize("harm", [cut, empty, Path.unlink])
def test_without_its_manifest_it_is_none(
    tiny: MakeConfig, train: Train, tmp_path: Path, harm: Callable[[Path], None]
) -> None:
    train(tiny(), stop_after=4)
    harm(tmp_path / "run/checkpoints/step-00000004/manifest.json")
    said: list[str] = []
    train(tiny(), said=said, resume=True)
    assert "manifest.json" in said[0] and said[1] == "continues after step 2"


def test_when_none_is_whole_nothing_is_trained(tiny: MakeConfig, train: Train, tmp_path: Path) -> None:
    train(tiny(), stop_after=4)
    for path in (tmp_path / "run/checkpoints").iterdir():
        flip(path / "model.safetensors")
    before = (tmp_path / "run/metrics.jsonl").read_bytes()
    with pytest.raises(CheckpointError, match="none of the 2 checkpoints") as caught:
        train(tiny(), resume=True)
    assert "model.safetensors has other contents" in caught.value.why
    assert (tmp_path / "run/metrics.jsonl").read_bytes() == before


def full_disk(*_: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("target", ["os.rename", "reference_trainer.checkpoint.save_file"])
def test_a_last_save_that_fails_leaves_the_one_before(
    tiny: MakeConfig, train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, target: str
) -> None:
    config = tiny(steps=4)
    whole = train(config, "whole")
    train(config, stop_after=2)
    first = contents(tmp_path / "run/checkpoints/step-00000002")
    with monkeypatch.context() as patch:
        patch.setattr(target, full_disk)
        with pytest.raises(FileError, match="checkpoint of step 4 could not be written") as caught:
            train(config, resume=True)
    assert "No space left" in caught.value.why
    assert names(tmp_path / "run") == ["step-00000002"]
    assert contents(tmp_path / "run/checkpoints/step-00000002") == first
    assert train(config, resume=True).losses == whole.losses[2:]


def test_what_reads_back_differently_is_not_trusted(
    tiny: MakeConfig, train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rename = os.rename

    def damaged(old: Path, new: Path) -> None:
        rename(old, new)
        flip(new / "model.safetensors")

    monkeypatch.setattr(os, "rename", damaged)
    with pytest.raises(FileError, match="reads back differently"):
        train(tiny(steps=1))


def test_the_manifest_comes_last_and_all_is_synced(
    tiny: MakeConfig, train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A rename that reaches the disk before the data does is a torn checkpoint under a good name."""
    seen: list[str] = []
    sync, rename = publish.sync, os.rename

    def synced(path: Path) -> None:
        seen.append(path.name)
        sync(path)

    def renamed(old: Path, new: Path) -> None:
        seen.append("rename")
        rename(old, new)

    monkeypatch.setattr(publish, "sync", synced)
    monkeypatch.setattr(os, "rename", renamed)
    train(tiny(steps=1))
    assert seen == ["run", *PAYLOAD, "manifest.json", ".tmp-step-00000001", "rename", "checkpoints"]


def test_three_checkpoints_are_kept(tiny: MakeConfig, train: Train, tmp_path: Path) -> None:
    train(tiny(steps=7, checkpoint_every=1))
    assert names(tmp_path / "run") == ["step-00000005", "step-00000006", "step-00000007"]


def test_weights_that_are_not_finite_are_not_saved(
    tiny: MakeConfig, train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An update can overflow although its gradient is finite."""
    step = torch.optim.AdamW.step

    def overflows(self: torch.optim.AdamW) -> None:
        step(self)
        if float(next(iter(self.state.values()))["step"]) == 3:
            self.param_groups[0]["params"][0].data[0, 0] = torch.inf

    monkeypatch.setattr(torch.optim.AdamW, "step", overflows)
    with pytest.raises(CheckpointError, match=r"weights after step 3: embedding.weight is not finite"):
        train(tiny(checkpoint_every=1))
    assert names(tmp_path / "run") == ["step-00000001", "step-00000002"]


def test_nothing_in_the_trainer_unpickles() -> None:
    sources = sorted(Path(reference_trainer.__file__).parent.glob("*.py"))
    assert len(sources) > 10
    for source in sources:
        for node in ast.walk(ast.parse(source.read_text(encoding="utf-8"))):
            modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            modules += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not {"pickle", "shelve", "marshal", "dill", "joblib"} & {m.partition(".")[0] for m in modules}, (
                source
            )
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                assert (node.value.id, node.attr) not in {("torch", "save"), ("torch", "load"), ("np", "load")}, source


def test_no_file_of_a_run_is_a_pickle(tiny: MakeConfig, train: Train, tmp_path: Path) -> None:
    train(tiny(steps=1))
    files = [file for file in sorted((tmp_path / "run").rglob("*")) if file.is_file()]
    assert len(files) == 7
    for file in files:
        content = file.read_bytes()
        assert not content.startswith((b"\x80", b"PK"))
        if file.suffix == ".safetensors":  # the header's length, then the header in JSON
            json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
