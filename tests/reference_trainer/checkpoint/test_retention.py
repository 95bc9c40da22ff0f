"""A save is complete or absent, a damaged checkpoint is skipped, and loading cannot run code."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from planner.config.run import RunConfig
from planner.errors import CheckpointError, FileError
from reference_trainer.checkpoint import atomic as publish
from reference_trainer.metrics.records import RunResult
from tests.reference_trainer.harm import PAYLOAD, flip, hashes, names

MakeConfig = Callable[..., RunConfig]
Train = Callable[..., RunResult]


def test_what_lies_in_a_checkpoint(tiny: MakeConfig, train: Train, tmp_path: Path) -> None:
    result = train(tiny(), stop_after=2)
    checkpoint = tmp_path / "run/checkpoints/step-00000002"
    assert names(checkpoint) == sorted([*PAYLOAD, "manifest.json"])
    weights = load_file(checkpoint / "model.safetensors")
    assert sum(w.numel() for w in weights.values()) == result.parameters  # a tied weight once
    assert {w.dtype for w in weights.values()} == {torch.float32}
    moments = load_file(checkpoint / "optimizer.safetensors")
    assert set(moments) == {f"{name}.{key}" for name in weights for key in ("exp_avg", "exp_avg_sq", "step")}
    assert {float(value) for name, value in moments.items() if name.endswith(".step")} == {2.0}
    state = json.loads((checkpoint / "state.json").read_text())
    assert (state["step"], state["tokens"], state["data_fingerprint"]) == (2, 256, result.data_fingerprint)
    assert state["machine"] == {"device": result.device_name, "torch": result.torch_version}
    assert result.checkpoint_bytes == sum(file.stat().st_size for file in checkpoint.iterdir())


def full_disk(*_: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("target", ["os.rename", "reference_trainer.checkpoint.checkpoint.save_file"])
def test_a_last_save_that_fails_leaves_the_one_before(
    tiny: MakeConfig, train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, target: str
) -> None:
    config = tiny(steps=4)
    whole = train(config, "whole")
    train(config, stop_after=2)
    first = hashes(tmp_path / "run/checkpoints/step-00000002")
    with monkeypatch.context() as patch:
        patch.setattr(target, full_disk)
        with pytest.raises(FileError, match="checkpoint of step 4 could not be written") as caught:
            train(config, resume=True)
    assert "No space left" in caught.value.why
    assert names(tmp_path / "run/checkpoints") == ["step-00000002"]
    assert hashes(tmp_path / "run/checkpoints/step-00000002") == first
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
    assert names(tmp_path / "run/checkpoints") == ["step-00000005", "step-00000006", "step-00000007"]


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
    assert names(tmp_path / "run/checkpoints") == ["step-00000001", "step-00000002"]
