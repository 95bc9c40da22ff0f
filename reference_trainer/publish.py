"""Folders of files that are published whole or not at all, one per step, newest last.

A folder `step-00000123` is written as `.tmp-step-…` beside its place; its files, and then a manifest of their sizes and
hashes, reach the disk (fsync) before the rename that publishes it. A crash at any moment leaves the older folders and
at most one that nobody reads.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import safetensors
import torch
from safetensors import SafetensorError

from planner.errors import CheckpointError, FileError
from planner.units import format_bytes

SCHEMA = 1
KEEP = 3  # newest checkpoints left on disk: the one in use, and two to fall back to
MANIFEST = "manifest.json"
VERSIONS = {
    "python": platform.python_version(),
    "torch": str(torch.__version__),
    "safetensors": safetensors.__version__,
}


def publish(folder: Path, step: int, write: Callable[[Path], None]) -> Path:
    """Let `write` fill a new `folder/step-…`, publish it and verify it; a failure leaves what was there before.

    Raises FileError where the disk refuses or gives back other bytes than were written.
    """
    final = folder / f"step-{step:08d}"
    temporary = folder / f".tmp-{final.name}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _sync(folder.parent)  # or a crash could forget the folder and all that is in it
        sweep(folder)
        temporary.mkdir()
        write(temporary)
        _write_manifest(temporary, step)
        _sync(temporary)
        if final.exists():  # a damaged one that the run stepped over: no whole one is ever replaced
            os.rename(final, folder / f".tmp-old-{final.name}")
        os.rename(temporary, final)
        _sync(folder)
    except (OSError, SafetensorError) as error:  # the latter for a full disk
        shutil.rmtree(temporary, ignore_errors=True)
        raise FileError(
            f"the checkpoint of step {step} could not be written to {folder}",
            why=str(error),
            remedy="free space or mend the permissions; earlier checkpoints are untouched",
        ) from error
    problem = problem_with(final)
    if problem:
        raise FileError(f"the checkpoint just written to {final} reads back differently", why=problem)
    sweep(folder)
    return final


def prune(folder: Path, newest_step: int, keep: int = KEEP) -> list[Path]:
    """Delete all but the `keep` newest checkpoints up to `newest_step`, which must be verified; returns the deleted.

    A checkpoint above `newest_step` is a damaged one that was stepped over: it stays until its step is saved again.
    """
    older = [path for path in list_checkpoints(folder) if step_in(path) <= newest_step]
    doomed = older[:-keep]
    for path in doomed:
        shutil.rmtree(path, ignore_errors=True)  # a checkpoint too many is no reason to stop training
    return doomed


def check_space(folder: Path, bytes_each: int, saves: int) -> None:
    """Raises FileError if the disk of `folder` has no room for `saves` more checkpoints, as many as are ever kept."""
    standing = len(list_checkpoints(folder))
    extra = min(standing + saves, KEEP + 1) - min(standing, KEEP)  # the new one stands before the oldest goes
    need = max(extra, 1) * bytes_each
    free = shutil.disk_usage(next(path for path in (folder, *folder.parents) if path.exists())).free
    if free < need:
        raise FileError(
            f"{folder} has {format_bytes(free)} free; the checkpoints of this run need {format_bytes(need)}",
            why=f"{max(extra, 1)} × {format_bytes(bytes_each)} stand there at the most, besides what is there",
            remedy="free space, or choose a directory on another disk with --out",
        )


def sweep(folder: Path) -> None:
    """Delete what interrupted saves left. Only the holder of the run's lock may."""
    for stray in folder.glob(".tmp-*"):
        shutil.rmtree(stray, ignore_errors=True)


def _write_manifest(folder: Path, step: int) -> None:
    payload = sorted(folder.iterdir())
    for file in payload:
        _sync(file)
    files = {file.name: {"bytes": file.stat().st_size, "sha256": _sha256(file)} for file in payload}
    manifest = {"schema": SCHEMA, "step": step, "files": files, "versions": VERSIONS}
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")
    _sync(folder / MANIFEST)


def _sync(path: Path) -> None:
    """Wait until a file or folder is on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def list_checkpoints(folder: Path) -> list[Path]:
    """Folders named as checkpoints, oldest step first, good or bad; strays, files and links are none."""
    if not folder.is_dir():
        return []
    named = [path for path in folder.iterdir() if re.fullmatch(r"step-\d{8,}", path.name)]
    return sorted((path for path in named if path.is_dir() and not path.is_symlink()), key=step_in)


def step_in(path: Path) -> int:
    """The step that the name of a checkpoint states."""
    return int(path.name.removeprefix("step-"))


def bytes_of(path: Path) -> int:
    """Size of a checkpoint's files together, bytes."""
    return sum(file.stat().st_size for file in path.iterdir())


def problem_with(path: Path) -> str:
    """What is wrong with a checkpoint, in one sentence; empty if every file has the size and the hash it should."""
    try:
        manifest = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
        if manifest["schema"] != SCHEMA:
            return f"it is written in format {manifest['schema']}; this version reads {SCHEMA}"
        if manifest["step"] != step_in(path):
            return f"{MANIFEST} belongs to another checkpoint"
        if {file.name for file in path.iterdir()} != {*manifest["files"], MANIFEST}:
            return f"its files are not those that {MANIFEST} lists"
        for name, expected in manifest["files"].items():
            size = (path / name).stat().st_size
            if size != expected["bytes"]:
                return f"{name} has {size} bytes instead of {expected['bytes']}"
            if _sha256(path / name) != expected["sha256"]:
                return f"{name} has other contents than were written"
    except OSError as error:
        return f"{Path(error.filename or path).name} cannot be read: {error.strerror}"
    except (ValueError, KeyError, TypeError, AttributeError):
        return f"{MANIFEST} is damaged"
    return ""


def newest_valid(folder: Path, say: Callable[[str], None]) -> Path | None:
    """The checkpoint of the highest step that is whole; damaged ones are named to `say` and stepped over.

    None where there is none at all. Raises CheckpointError where there are some and all are damaged.
    """
    standing = list_checkpoints(folder)
    problem = ""
    for path in reversed(standing):
        problem = problem_with(path)
        if not problem:
            return path
        say(f"{path.name} is damaged ({problem}); trying the one before it")
    if standing:
        raise CheckpointError(
            f"none of the {len(standing)} checkpoints in {folder} is whole",
            why=f"the oldest: {problem}",
            remedy="start again in another directory, or bring back a good copy",
        )
    return None
