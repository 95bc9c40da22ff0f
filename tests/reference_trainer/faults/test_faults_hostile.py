"""Hostile files in place of a checkpoint: refused by name, never executed; none of our files is a pickle."""

from __future__ import annotations

import ast
import json
import pickle
import pickletools
from pathlib import Path
from typing import Any

import pytest

import gptplan
import planner
import reference_trainer
from planner.errors import CheckpointError
from tests.reference_trainer.harm import falls_back, rewrite_manifest

Finished = Any  # conftest.Finished
FOURTH = "checkpoints/step-00000004"


class Trap:
    """An object whose unpickling makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.path,))


@pytest.mark.parametrize("file", ["model.safetensors", "optimizer.safetensors", "state.json"])
def test_fault_30_a_pickle_is_refused_and_not_run(finished: Finished, tmp_path: Path, file: str) -> None:
    out, sprung = finished.copy(tmp_path), tmp_path / "sprung"
    trap = pickle.dumps(Trap(sprung))
    (out / FOURTH / file).write_bytes(trap)
    rewrite_manifest(out / FOURTH)
    with pytest.raises(CheckpointError, match=f"{file} cannot be"):
        finished.resume(out)
    assert not sprung.exists()
    pickle.loads(trap)
    assert sprung.exists()  # it would have


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"settings": []}, "settings: it must be an object"),
        ({"step": "2"}, "step: it must be a valid integer"),
        ({"config_hash": "0"}, "its settings do not give the hash that it states"),
        (None, "state.json cannot be used"),
    ],
)
def test_fault_30_a_state_of_another_kind(
    finished: Finished, tmp_path: Path, change: dict[str, Any] | None, words: str
) -> None:
    out = finished.copy(tmp_path)
    file = out / FOURTH / "state.json"
    file.write_text("[]" if change is None else json.dumps(json.loads(file.read_text()) | change))
    rewrite_manifest(out / FOURTH)
    with pytest.raises(CheckpointError, match=words) as caught:
        finished.resume(out)
    assert "delete step-00000004" in caught.value.remedy


@pytest.mark.parametrize("lie", [2**62, 2**20, 3])
def test_fault_30_a_header_that_lies_about_its_size(finished: Finished, tmp_path: Path, lie: int) -> None:
    out = finished.copy(tmp_path)
    file = out / FOURTH / "model.safetensors"
    file.write_bytes(lie.to_bytes(8, "little") + file.read_bytes()[8:])
    rewrite_manifest(out / FOURTH)
    with pytest.raises(CheckpointError, match=r"model\.safetensors cannot be read"):
        finished.resume(out)


def test_fault_30_a_header_that_lies_about_a_tensor(finished: Finished, tmp_path: Path) -> None:
    out = finished.copy(tmp_path)
    file = out / FOURTH / "model.safetensors"
    content = file.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    next(entry for name, entry in header.items() if name != "__metadata__")["data_offsets"][1] += 2**40
    lying = json.dumps(header).encode()
    file.write_bytes(len(lying).to_bytes(8, "little") + lying + content[8 + length :])
    rewrite_manifest(out / FOURTH)
    with pytest.raises(CheckpointError, match=r"model\.safetensors cannot be read"):
        finished.resume(out)


def test_fault_30_names_that_lead_out_of_the_folder(finished: Finished, tmp_path: Path) -> None:
    def add_a_path(newest: Path) -> None:
        manifest = json.loads((newest / "manifest.json").read_text())
        manifest["files"]["../../config.toml"] = {"bytes": 1, "sha256": ""}
        (newest / "manifest.json").write_text(json.dumps(manifest))

    falls_back(finished, tmp_path, add_a_path, "its files are not those that manifest.json lists")


def test_fault_30_a_link_in_place_of_a_file(finished: Finished, tmp_path: Path) -> None:
    def link_out(newest: Path) -> None:
        (newest / "model.safetensors").rename(tmp_path / "mine")
        (newest / "model.safetensors").symlink_to(tmp_path / "mine")

    words, left = "model.safetensors is no file of its own", (".tmp-old-step-00000004",)
    falls_back(finished, tmp_path, link_out, words, left=left)
    assert (tmp_path / "mine").exists()


def test_fault_30_no_file_of_a_run_is_a_pickle(finished: Finished) -> None:
    files = [file for file in sorted((finished.root / "run").rglob("*")) if file.is_file()]
    assert len(files) == 13
    for file in files:
        content = file.read_bytes()
        assert not content.startswith((b"\x80", b"PK"))
        if content:
            with pytest.raises((ValueError, IndexError, pickle.UnpicklingError)):
                list(pickletools.genops(content))  # every opcode up to STOP, were it one
        if file.suffix == ".safetensors":  # the header's length, then the header in JSON
            json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])


def test_fault_30_no_source_unpickles() -> None:
    sources = [s for p in (reference_trainer, planner, gptplan) for s in sorted(Path(p.__file__).parent.rglob("*.py"))]
    assert len(sources) > 100
    forbidden = {"pickle", "cPickle", "shelve", "marshal", "dill", "cloudpickle", "joblib"}
    for source in sources:
        for node in ast.walk(ast.parse(source.read_text(encoding="utf-8"))):
            modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            modules += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not forbidden & {m.partition(".")[0] for m in modules}, source
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                assert (node.value.id, node.attr) not in {("torch", "save"), ("torch", "load"), ("np", "load")}, source
