"""Faults in stored checkpoints: each is named, the last good one is used, the losses are those of a run without faults.

The numbers are those of the list of faults in docs/how-to/checkpoints.md.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from planner.errors import CheckpointError
from planner.inputs.run_toml import load_config
from reference_trainer.checkpoint import atomic as publish
from reference_trainer.checkpoint.checkpoint import load, read_state, refuse_other_config, state_of
from reference_trainer.measure.measure import build_model
from reference_trainer.optim.updater import make_optimizer
from reference_trainer.step.options import RunOptions
from reference_trainer.train import run
from tests.reference_trainer.harm import (
    FOURTH,
    PAYLOAD,
    SECOND,
    cut,
    empty,
    falls_back,
    flip,
    hashes,
    names,
    rewrite_manifest,
    shorten,
)

Finished = Any  # conftest.Finished
MakeConfig = Callable[..., Any]
OLD = Path(__file__).parents[2] / "data/checkpoint_format_1"


CUTS = [(harm, file) for harm in (shorten, cut, empty, Path.unlink) for file in (*PAYLOAD, "manifest.json")]


# without the line feed at its end the manifest is as whole
@pytest.mark.parametrize(("harm", "file"), [case for case in CUTS if case != (shorten, "manifest.json")])
def test_fault_03_a_truncated_file(finished: Finished, tmp_path: Path, harm: Callable[[Path], None], file: str) -> None:
    falls_back(finished, tmp_path, lambda newest: harm(newest / file), *([file] if harm is not Path.unlink else []))


def test_fault_03_when_none_is_whole_nothing_is_trained(finished: Finished, tmp_path: Path) -> None:
    out = finished.copy(tmp_path)
    for path in (out / "checkpoints").iterdir():
        cut(path / "model.safetensors")
    before = hashes(out)
    with pytest.raises(CheckpointError, match="none of the 2 checkpoints") as caught:
        finished.resume(out)
    assert "model.safetensors has" in caught.value.why and "bytes instead of" in caught.value.why
    assert {k: v for k, v in hashes(out).items() if k != "run.lock"} == {
        k: v for k, v in before.items() if k != "run.lock"
    }


@pytest.mark.parametrize("file", PAYLOAD)
def test_fault_04_one_flipped_bit(finished: Finished, tmp_path: Path, file: str) -> None:
    falls_back(finished, tmp_path, lambda newest: flip(newest / file), f"{file} has other contents than were written")


def test_fault_05_strays_are_no_checkpoints(finished: Finished, tmp_path: Path) -> None:
    out = finished.copy(tmp_path)
    folder, good = out / "checkpoints", out / SECOND
    shutil.rmtree(out / FOURTH)
    for stray in (".tmp-step-00000009", "step-9", "copy-of-step-00000009"):
        shutil.copytree(good, folder / stray)
    shutil.copytree(good, tmp_path / "elsewhere")
    (folder / "step-00000008").symlink_to(tmp_path / "elsewhere")
    (folder / "latest").symlink_to("step-00000099")
    (folder / "step-00000007").write_text("a file")
    shutil.copytree(good, folder / "step-00000006")  # its manifest says 2
    assert publish.list_checkpoints(folder) == [good, folder / "step-00000006"]
    result, said = finished.resume(out)
    assert "step-00000006 is damaged (manifest.json belongs to another checkpoint)" in said[0]
    assert said[1] == "continues after step 2" and result.losses == finished.losses[2:]
    assert not (folder / ".tmp-step-00000009").exists() and (tmp_path / "elsewhere/state.json").exists()


def test_fault_05_steps_are_ordered_as_numbers(tmp_path: Path) -> None:
    for step in (99_999_999, 100_000_000, 5):
        (tmp_path / f"step-{step:08d}").mkdir()
    assert [publish.step_in(path) for path in publish.list_checkpoints(tmp_path)] == [5, 99_999_999, 100_000_000]


@pytest.mark.parametrize("file", ["model.safetensors", "optimizer.safetensors"])
def test_fault_10_values_that_are_not_finite_are_refused_by_name(finished: Finished, tmp_path: Path, file: str) -> None:
    out = finished.copy(tmp_path)
    tensors = load_file(out / FOURTH / file)
    name = next(name for name in tensors if "mlp.up.weight" in name)
    tensors[name].flatten()[3] = float("nan")
    save_file(tensors, out / FOURTH / file)
    rewrite_manifest(out / FOURTH)
    with pytest.raises(CheckpointError, match=f"{name} is not finite"):
        finished.resume(out, finished.config)
    assert hashes(out / SECOND) == hashes(finished.root / "run" / SECOND)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"hidden": 48}, "model.hidden was 32, is now 48"),
        ({"layers": 3}, "model.layers was 2, is now 3"),
        ({"heads": 4, "kv_heads": 4, "head_dim": 8}, "model.heads was 2, is now 4"),
        ({"vocab": 512}, "model.vocab was 256, is now 512"),
        ({"tied_embeddings": False}, "model.tied_embeddings was True, is now False"),
        ({"seq": 16}, "training.seq was 32, is now 16"),
        ({"seed": 8}, "training.seed was 7, is now 8"),
        ({"steps": 9}, "training.steps was 4, is now 9"),
        ({"accumulation": 4}, "training.accumulation was 2, is now 4"),
        ({"beta2": 0.999}, "optimizer.beta2 was 0.95, is now 0.999"),
        ({"peak_lr": 1e-3}, "schedule.peak_lr was 0.003, is now 0.001"),
        ({"recipe": "mixed-bf16"}, "training.recipe was fp32, is now mixed-bf16"),
    ],
)
def test_fault_17_another_config_is_refused(
    finished: Finished, tiny: MakeConfig, change: dict[str, Any], words: str
) -> None:
    config = tiny(**{"steps": 4} | change)
    before = hashes(finished.root / "run")
    with pytest.raises(CheckpointError, match=words) as caught:
        refuse_other_config(finished.root / "run/checkpoints", config)  # before a model is built
    assert "config.toml" in caught.value.remedy
    assert ("--new-schedule" in caught.value.remedy) == (set(change) <= {"steps", "peak_lr"})
    with pytest.raises(CheckpointError, match=words):
        finished.resume(finished.root / "run", config)
    assert hashes(finished.root / "run") == before


def test_fault_17_what_may_change_is_said_and_obeyed(finished: Finished, tiny: MakeConfig, tmp_path: Path) -> None:
    out = finished.copy(tmp_path)
    shutil.rmtree(out / FOURTH)
    changed = tiny(steps=4, checkpoint_every=1, source="elsewhere", micro_batch=1, accumulation=4)
    result, said = finished.resume(out, changed)
    assert result.finished and names(out / "checkpoints") == ["step-00000002", "step-00000003", "step-00000004"]
    told = "\n".join(said)
    assert "allowed: training.checkpoint_every was 2, is now 1" in told
    assert "warned: training.micro_batch was 2, is now 1" in told
    assert "bit-equality with an uninterrupted run is no longer promised" in told
    assert result.losses == pytest.approx(finished.losses[2:], rel=1e-5)  # the same samples, in other sums


def test_fault_17_a_new_schedule_on_request(finished: Finished, tiny: MakeConfig, tmp_path: Path) -> None:
    out = finished.copy(tmp_path)
    result, said = finished.resume(out, tiny(steps=6), new_schedule=True)
    assert result.finished and result.steps_done == 6 and len(result.losses) == 2
    assert "warned: training.steps was 4, is now 6" in "\n".join(said)
    (jump,) = [line for line in said if "learning rate jumps" in line]
    assert f"at step 5 the learning rate jumps from 0.0003 to {result.rates[0][1]:.3g}, " in jump
    assert [step for step, _ in result.rates] == [5, 6] and result.rates[0][1] > 3e-4  # above the floor once more


def updater_of(config: Any) -> Any:
    return make_optimizer(build_model(config), config)


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (lambda t, name: t.pop(name), "missing: "),
        (lambda t, name: t.update({"stranger": torch.zeros(1)}), "unknown: stranger"),
        (lambda t, name: t.update({name: t[name].flatten()}), r"and must be float32 \[\d+, \d+\]"),
        (lambda t, name: t.update({name: t[name].bfloat16()}), r"is bfloat16 .*must be float32 .*nothing is converted"),
    ],
)
@pytest.mark.parametrize("file", ["model.safetensors", "optimizer.safetensors"])
def test_fault_19_tensors_that_do_not_fit_are_refused(
    finished: Finished, tmp_path: Path, file: str, harm: Callable[..., object], words: str
) -> None:
    out = finished.copy(tmp_path)
    tensors = load_file(out / FOURTH / file)
    harm(tensors, next(name for name, t in tensors.items() if t.dim() == 2))
    save_file(tensors, out / FOURTH / file)
    rewrite_manifest(out / FOURTH)
    updater = updater_of(finished.config)
    before = {name: w.detach().clone() for name, w in updater.weights.items()}
    expected = state_of(finished.config, read_state(out / FOURTH).data_fingerprint, 0, 0)
    with pytest.raises(CheckpointError, match=words) as caught:
        load(out / FOURTH, updater, expected)
    assert file in caught.value.what and "delete step-00000004" in caught.value.remedy
    assert all(torch.equal(w, before[name]) for name, w in updater.weights.items())  # none was copied


def test_fault_19_the_order_of_tensors_does_not_matter(finished: Finished, tmp_path: Path) -> None:
    """safetensors sorts by type and name as it writes, so that the order is turned around in the header itself."""
    out = finished.copy(tmp_path)
    file = out / FOURTH / "optimizer.safetensors"
    content = file.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    turned = json.dumps(dict(reversed(header.items())), separators=(",", ":")).encode()
    file.write_bytes(len(turned).to_bytes(8, "little") + turned + content[8 + length :])
    rewrite_manifest(out / FOURTH)
    updater = updater_of(finished.config)
    load(out / FOURTH, updater, state_of(finished.config, read_state(out / FOURTH).data_fingerprint, 0, 0))
    stored = load_file(finished.root / "run" / FOURTH / "optimizer.safetensors")
    assert all(torch.equal(t, stored[name]) for name, t in updater.state().items())


def test_fault_20_another_machine_is_said(finished: Finished, tmp_path: Path) -> None:
    out = finished.copy(tmp_path)
    shutil.rmtree(out / FOURTH)
    state = json.loads((out / SECOND / "state.json").read_text())
    state["machine"] = {"device": "another GPU", "torch": "2.12.1"}
    (out / SECOND / "state.json").write_text(json.dumps(state))
    rewrite_manifest(out / SECOND)
    result, said = finished.resume(out)
    told = "\n".join(said)
    assert "warned: torch was 2.12.1, is now" in told and "warned: device was another GPU, is now" in told
    assert told.count("bit-equality with an uninterrupted run is no longer promised") == 2
    assert result.losses == finished.losses[2:]


def test_fault_33_a_checkpoint_of_format_1_continues(tmp_path: Path) -> None:
    """Written by gptplan 0.1.0 with PyTorch 2.13.0 on a CPU; other versions may round otherwise."""
    out = Path(shutil.copytree(OLD / "run", tmp_path / "run"))
    said: list[str] = []
    options = RunOptions(device="cpu", data_path=OLD / "text.txt", resume=True)
    result = run(load_config(out / "config.toml"), out, options, said.append)
    losses = json.loads((OLD / "losses.json").read_text())
    fresh = "step-00000003 has no guard.count, guard.window of the shape in use: they begin fresh"
    assert said[:2] == [fresh, "continues after step 3"] and result.finished
    assert result.losses == pytest.approx(losses[3:], rel=1e-5)
    window = torch.full((4,), 7.0)
    updater = updater_of(load_config(out / "config.toml"))
    stored = read_state(out / "checkpoints/step-00000003")
    assert (stored.progress, stored.machine) == ({}, {})
    expected = state_of(load_config(out / "config.toml"), stored.data_fingerprint, 0, 0, {}, "cpu")
    load(out / "checkpoints/step-00000003", updater, expected, {"window": window}, said.append)
    assert said[-1] == "step-00000003 has no window of the shape in use: they begin fresh"
    assert window.tolist() == [7.0] * 4


def test_fault_33_a_newer_format_says_its_version(finished: Finished, tmp_path: Path) -> None:
    def from_the_future(newest: Path) -> None:
        manifest = json.loads((newest / "manifest.json").read_text())
        (newest / "manifest.json").write_text(json.dumps(manifest | {"schema": 4}))

    falls_back(finished, tmp_path, from_the_future, "it is written in format 4; this version reads 1, 2 and 3")
