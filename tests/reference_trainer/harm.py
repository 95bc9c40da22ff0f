"""Damages checkpoint files for tests, and inspects them."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from reference_trainer.checkpoint import atomic as publish

SECOND, FOURTH = "checkpoints/step-00000002", "checkpoints/step-00000004"  # of conftest.Finished
PAYLOAD = ("extra.safetensors", "model.safetensors", "optimizer.safetensors", "state.json")


def names(folder: Path) -> list[str]:
    """What lies in a folder."""
    return sorted(path.name for path in folder.iterdir())


def hashes(folder: Path) -> dict[str, str]:
    """sha256 of each file of a folder and below, by its relative path."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(file.relative_to(folder)): publish.sha256(file) for file in files}


def events(run: Path) -> list[str]:
    """The names in events.jsonl."""
    return [json.loads(line)["event"] for line in (run / "events.jsonl").read_text().splitlines()]


def steps_logged(run: Path) -> list[int]:
    """The steps in metrics.jsonl."""
    return [json.loads(line)["step"] for line in (run / "metrics.jsonl").read_text().splitlines()]


def shorten(file: Path) -> None:
    """Drop the last byte of a file."""
    os.truncate(file, file.stat().st_size - 1)


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


def rewrite_manifest(checkpoint: Path) -> None:
    """Make the manifest agree with the files, as if they had been written so."""
    manifest = json.loads((checkpoint / "manifest.json").read_text())
    for name, entry in manifest["files"].items():
        file = checkpoint / name
        entry |= {"bytes": file.stat().st_size, "sha256": publish.sha256(file)}
    (checkpoint / "manifest.json").write_text(json.dumps(manifest))


def falls_back(
    finished: Any, tmp_path: Path, harm: Callable[[Path], object], *words: str, left: tuple[str, ...] = ()
) -> None:
    """After `harm` to the newest checkpoint the run says so, continues from the one before, and ends as it did.

    left: what stays in the folder, because it holds something that the trainer did not make.
    """
    out = finished.copy(tmp_path)
    good = hashes(out / SECOND)
    harm(out / FOURTH)
    result, said = finished.resume(out)
    assert said[0].startswith("step-00000004 is damaged (") and "trying the one before it" in said[0]
    assert "\n" not in said[0]
    for word in words:
        assert word in said[0]
    assert said[1] == "continues after step 2"
    assert result.finished and result.losses == finished.losses[2:]
    assert names(out / "checkpoints") == [*left, "step-00000002", "step-00000004"]
    assert hashes(out / SECOND) == good == hashes(finished.root / "run" / SECOND)
    fresh, first = hashes(out / FOURTH), hashes(finished.root / "run" / FOURTH)
    assert [fresh[name] for name in PAYLOAD] == [first[name] for name in PAYLOAD]
