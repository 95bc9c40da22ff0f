"""What lies in a checkpoint, which folders are one, and that a crash or a full disk costs one save at the most."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from planner.config import RunConfig
from planner.errors import CheckpointError, FileError
from reference_trainer import publish
from reference_trainer.records import RunResult

Train = Callable[..., RunResult]
MakeConfig = Callable[..., RunConfig]
PAYLOAD = ["model.safetensors", "optimizer.safetensors", "state.json"]


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def events(run: Path) -> list[str]:
    return [json.loads(line)["event"] for line in (run / "events.jsonl").read_text().splitlines()]


def rewrite_manifest(checkpoint: Path) -> None:
    """Make the manifest agree with the files, as if they had been written so."""
    manifest = json.loads((checkpoint / "manifest.json").read_text())
    for name, entry in manifest["files"].items():
        file = checkpoint / name
        entry |= {"bytes": file.stat().st_size, "sha256": publish.sha256(file)}
    (checkpoint / "manifest.json").write_text(json.dumps(manifest))


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
    assert result.checkpoint_bytes == sum(file.stat().st_size for file in checkpoint.iterdir())


def test_strays_are_no_checkpoints(tiny: MakeConfig, train: Train, tmp_path: Path) -> None:
    train(tiny(), stop_after=2)
    folder = tmp_path / "run/checkpoints"
    good = folder / "step-00000002"
    shutil.copytree(good, folder / ".tmp-step-00000009")
    shutil.copytree(good, folder / "step-9")
    shutil.copytree(good, folder / "copy-of-step-00000009")
    shutil.copytree(good, tmp_path / "elsewhere")
    (folder / "step-00000008").symlink_to(tmp_path / "elsewhere")
    (folder / "step-00000007").write_text("a file")
    assert publish.list_checkpoints(folder) == [good]
    shutil.copytree(good, folder / "step-00000006")  # its manifest says 2
    said: list[str] = []
    assert publish.newest_valid(folder, said.append) == good
    assert "belongs to another checkpoint" in said[0]


def test_steps_are_ordered_as_numbers(tmp_path: Path) -> None:
    for step in (99_999_999, 100_000_000, 5):
        (tmp_path / f"step-{step:08d}").mkdir()
    assert [publish.step_in(path) for path in publish.list_checkpoints(tmp_path)] == [5, 99_999_999, 100_000_000]


def test_an_unknown_format_is_named(tiny: MakeConfig, train: Train, tmp_path: Path) -> None:
    train(tiny(), stop_after=2)
    path = tmp_path / "run/checkpoints/step-00000002"
    manifest = json.loads((path / "manifest.json").read_text())
    (path / "manifest.json").write_text(json.dumps(manifest | {"schema": 3}))
    assert publish.problem_with(path) == "it is written in format 3; this version reads 1 and 2"
    (path / "manifest.json").write_text("[]")
    assert publish.problem_with(path) == "manifest.json is damaged"
    traversal = {"files": manifest["files"] | {"../../config.toml": {"bytes": 1, "sha256": ""}}}
    (path / "manifest.json").write_text(json.dumps(manifest | traversal))
    assert publish.problem_with(path) == "its files are not those that manifest.json lists"


@pytest.mark.parametrize("blow", ["fsync", "rename"])
def test_a_disk_that_refuses_stops_nothing_but_the_last_save(
    tiny: MakeConfig, train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, blow: str
) -> None:
    real = getattr(os, blow)
    steps_saved: list[int] = []

    def refuse(*args: object) -> object:
        if (tmp_path / "run/checkpoints/.tmp-step-00000004").exists():
            steps_saved.append(4)
            raise OSError(28, "No space left on device")
        return real(*args)

    monkeypatch.setattr(os, blow, refuse)
    said: list[str] = []
    result = train(tiny(), said=said)
    assert result.finished and steps_saved
    assert events(tmp_path / "run") == [
        "start", "checkpoint", "checkpoint failed", "checkpoint", "checkpoint", "finished"
    ]  # fmt: skip
    assert names(tmp_path / "run/checkpoints") == ["step-00000002", "step-00000006", "step-00000008"]
    assert any("No space left on device" in line and "earlier checkpoints are untouched" in line for line in said)


CRASH = """
import os, signal, sys
from pathlib import Path
from planner.config import RunConfig
from reference_trainer.records import RunOptions
from reference_trainer.train import run

config, data, out, where = RunConfig.model_validate_json(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]), sys.argv[4]
real, seen = getattr(os, where), []

def die(*args):
    if (out / "checkpoints/step-00000002").exists():  # the first save was good
        seen.append(args)
        if len(seen) == int(sys.argv[5]):
            os.kill(os.getpid(), signal.SIGKILL)
    return real(*args)

setattr(os, where, die)
run(config, out, RunOptions(device="cpu", data_path=data), print)
"""


# synced: the rest of the first save (1), metrics (2), run (3), three files, manifest, folder (8); renamed; parent (9)
@pytest.mark.parametrize(("where", "nth", "continues_after"), [("fsync", 4, 2), ("rename", 1, 2), ("fsync", 9, 4)])
def test_a_kill_in_a_save_costs_no_more_than_that_save(
    tiny: MakeConfig,
    train: Train,
    tmp_path: Path,
    text: Path,
    child_environment: dict[str, str],
    where: str,
    nth: int,
    continues_after: int,
) -> None:
    whole = train(tiny(steps=6), "whole")
    out = tmp_path / "run"
    arguments = [tiny(steps=6).model_dump_json(), str(text), str(out), where, str(nth)]
    child = subprocess.run(
        [sys.executable, "-c", CRASH, *arguments], env=child_environment, capture_output=True, text=True, timeout=60
    )
    assert child.returncode == -signal.SIGKILL, child.stderr
    assert any(name.startswith(".tmp-") for name in names(out / "checkpoints")) == (continues_after == 2)
    said: list[str] = []
    result = train(tiny(steps=6), said=said, resume=True)
    assert said[0] == f"continues after step {continues_after}"
    assert result.losses == whole.losses[continues_after:]
    assert names(out / "checkpoints") == ["step-00000002", "step-00000004", "step-00000006"]
    assert [json.loads(line)["step"] for line in (out / "metrics.jsonl").read_text().splitlines()] == [*range(1, 7)]


def test_weights_that_are_not_finite_are_refused_by_name(tiny: MakeConfig, train: Train, tmp_path: Path) -> None:
    train(tiny(), stop_after=2)
    checkpoint = tmp_path / "run/checkpoints/step-00000002"
    weights = load_file(checkpoint / "model.safetensors")
    weights["blocks.0.mlp.up.weight"][0, 0] = float("nan")
    save_file(weights, checkpoint / "model.safetensors")
    rewrite_manifest(checkpoint)
    with pytest.raises(CheckpointError, match=r"blocks\.0\.mlp\.up\.weight is not finite"):
        train(tiny(), resume=True)


@pytest.mark.parametrize("file", ["model.safetensors", "optimizer.safetensors"])
def test_missing_and_misshapen_tensors_are_refused(tiny: MakeConfig, train: Train, tmp_path: Path, file: str) -> None:
    train(tiny(), stop_after=2)
    checkpoint = tmp_path / "run/checkpoints/step-00000002"
    tensors = load_file(checkpoint / file)
    name = next(name for name, tensor in tensors.items() if tensor.dim() == 2)
    save_file(tensors | {name: tensors[name].T.contiguous().flatten()}, checkpoint / file)
    rewrite_manifest(checkpoint)
    with pytest.raises(CheckpointError, match=f"{name} is float32 .* and must be float32"):
        train(tiny(), resume=True)
    del tensors[name]
    save_file(tensors, checkpoint / file)
    rewrite_manifest(checkpoint)
    with pytest.raises(CheckpointError, match=f"missing: {name}"):
        train(tiny(), resume=True)


def test_a_full_disk_is_noticed_before_the_first_step(
    tiny: MakeConfig, train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=4 * 2**20)  # four saves of 12 × 26,368 bytes + 1 MiB need more
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(FileError, match="checkpoints of this run need"):
        train(tiny())
    assert names(tmp_path / "run") == ["run.lock"]
    assert train(tiny(checkpoint_every=None)).finished  # one save fits
