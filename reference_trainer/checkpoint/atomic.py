"""Folders of files that appear complete or not at all, one per step.

A folder `step-00000123` is written as `.tmp-step-…` in the same parent. Its files, then a manifest with their sizes and
hashes, are synced (fsync) before the folder is renamed. A crash at any moment leaves the older folders intact, and
at most one temporary folder that is never read. PyTorch is not imported here, so tests of these files do not need it.

Nothing is deleted that was not written here: a temporary folder has a mark, or else a manifest, or holds only files
with the names of a checkpoint; what a finished one holds beside the files of its manifest is somebody's, and it stays.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import shutil
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from safetensors import SafetensorError

from planner.activity import doing
from planner.errors import CheckpointError, FileError
from planner.log import Log
from planner.own_files import delete_own_folder, not_ours, open_own_folder, refuse_link
from planner.paths import exists, is_file, is_folder, is_link
from reference_trainer.checkpoint.manifest import (
    MANIFEST,
    MANIFEST_SCHEMA,
    READABLE_SCHEMAS,
    SHARDED_SCHEMA,
    load_manifest,
)
from reference_trainer.device.disk import sync

Hashes = dict[str, dict[str, int | str]]  # of a manifest: the size and SHA-256 of each file by its name
MARK = ".gptplan"  # in a folder that is being written, until it has a manifest
_TEMPORARY = re.compile(r"\.tmp-(old-)?step-\d{8,}")
# also what versions without a mark left, and safetensors, which writes to .tmpXXXXXX first
_FILES = re.compile(
    r"(model|optimizer)(-\d{5,}-of-\d{5,})?\.safetensors|extra\.safetensors|(state|manifest)\.json|\.tmp[A-Za-z0-9]{6}"
)
RENAME_TIMEOUT = 10.0  # seconds in which a network file system shows what was renamed


def _installed(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "unknown"


VERSIONS = {"python": platform.python_version()} | {name: _installed(name) for name in ("torch", "safetensors")}


def checkpoint_folder(folder: Path, step: int) -> Path:
    """Where the checkpoint of a step stands when it is whole."""
    return folder / f"step-{step:08d}"


def temporary_folder(folder: Path, step: int) -> Path:
    """Where it is written."""
    return folder / f".tmp-{checkpoint_folder(folder, step).name}"


def hashes_of(files: Iterable[Path]) -> Hashes:
    """The files' entries in a manifest, after they have been synced."""
    found: Hashes = {}
    for file in files:
        sync(file)
        found[file.name] = {"bytes": file.stat().st_size, "sha256": sha256(file)}
    return found


def publish(
    folder: Path,
    step: int,
    write: Callable[[Path], object],
    hashed: Hashes | None = None,
    verify: Callable[[Path], str] | None = None,
) -> Path:
    """Let `write` fill a new `folder/step-…`, then rename and verify it. After a failure the old content is unchanged.

    hashed: where `write` leaves what it has synced and hashed already; the rest is here. verify: the fault of the
    renamed folder, "" for none. Raises FileError if the disk fails or returns other bytes than were written.
    """
    final, temporary = checkpoint_folder(folder, step), temporary_folder(folder, step)
    aside = folder / f".tmp-old-{final.name}"
    made = False
    try:
        refuse_link(folder)
        folder.mkdir(parents=True, exist_ok=True)
        sync(folder.parent)  # or a crash could forget the folder and all that is in it
        delete_leftovers(folder)
        temporary.mkdir()
        made = True
        (temporary / MARK).touch(exist_ok=False)
        write(temporary)
        _write_manifest(temporary, step, hashed or {})
        (temporary / MARK).unlink()
        sync(temporary)
        if exists(final):  # a damaged one that was stepped over, or one from before a rollback
            os.rename(final, aside)
        os.rename(temporary, final)
        sync(folder)
    except BaseException as error:
        if made:
            shutil.rmtree(temporary, ignore_errors=True)
        if exists(aside) and not exists(final):
            os.rename(aside, final)
        if not isinstance(error, OSError | SafetensorError):  # the latter for a full disk
            raise
        mended = "free space or mend the permissions"
        if isinstance(error, FileExistsError):
            mended = f"take {temporary.name} away, which gptplan did not make"
        raise FileError(
            f"the checkpoint of step {step} could not be written to {folder}",
            why=str(error),
            remedy=f"{mended}; earlier checkpoints are untouched",
        ) from error
    wait_until_visible(final)
    problem = (verify or problem_with)(final)
    if problem:
        raise FileError(f"the checkpoint just written to {final} reads back differently", why=problem)
    delete_leftovers(folder)
    return final


def wait_until_visible(path: Path) -> None:
    """Wait until a renamed folder is visible, which NFS may delay; give up after a while and let the reader fail."""
    end = time.monotonic() + RENAME_TIMEOUT
    while not exists(path / MANIFEST) and time.monotonic() < end:
        time.sleep(0.02)


def delete_leftovers(folder: Path) -> None:
    """Delete the leftovers of interrupted saves and deletions. Only the owner of the run's lock may call it.

    Links, files and folders that were not written here stay.
    """
    for stray in folder.iterdir():
        if _TEMPORARY.fullmatch(stray.name):
            with suppress(OSError):  # it is somebody's, or cannot be deleted: never read, it does no harm
                delete_checkpoint(stray)


def delete_checkpoint(path: Path) -> None:
    """Delete the folder of a checkpoint, whole or not. Raises OSError if it holds what was not written here."""
    delete_own_folder(path, _is_written_here(path), last=(MARK, MANIFEST))


def stranger_in(path: Path) -> str:
    """What lies in a checkpoint's folder and was not written here; "" for nothing. Raises OSError."""
    folder = open_own_folder(path)
    try:
        return not_ours(folder, _is_written_here(path))
    finally:
        os.close(folder)


def _is_written_here(path: Path) -> Callable[[str], bool]:
    """Whether a file of that name in a checkpoint's folder was written here."""
    if path.name.startswith(".tmp-") and os.path.isfile(path / MARK) and not os.path.islink(path / MARK):
        return lambda name: True
    try:
        listed = frozenset(load_manifest(path).files)
    except (OSError, ValueError):
        listed = frozenset()
    return lambda name: name in listed or name == MANIFEST or bool(_FILES.fullmatch(name))


def _write_manifest(folder: Path, step: int, known: Hashes) -> None:
    files = known | hashes_of(file for file in sorted(folder.iterdir()) if file.name not in {MARK, *known})
    schema = SHARDED_SCHEMA if any("-of-" in name for name in files) else MANIFEST_SCHEMA
    manifest = {"schema": schema, "step": step, "files": dict(sorted(files.items())), "versions": VERSIONS}
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")
    sync(folder / MANIFEST)


def sha256(path: Path) -> str:
    """The SHA-256 of a file's contents, hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def list_checkpoints(folder: Path) -> list[Path]:
    """Folders with a checkpoint's name, oldest step first, valid or not; without other folders, files and links."""
    if not is_folder(folder):
        return []
    named = [path for path in folder.iterdir() if re.fullmatch(r"step-\d{8,}", path.name)]
    return sorted((path for path in named if is_folder(path) and not is_link(path)), key=step_in)


def step_in(path: Path) -> int:
    """The step that the name of a checkpoint states."""
    return int(path.name.removeprefix("step-"))


def stored_bytes(path: Path) -> int:
    """Size of a checkpoint's files together, bytes."""
    return sum(file.stat().st_size for file in path.iterdir())


@doing("reading the checkpoint to the end, to see that it is whole")
def problem_with(path: Path, contents: bool = True) -> str:
    """The fault of a checkpoint in one sentence; empty if every file has the size and hash of the manifest.

    contents: False checks sizes only, and reads only the manifest.
    """
    try:
        manifest = load_manifest(path)
        if manifest.format not in READABLE_SCHEMAS:
            known = f"{', '.join(map(str, READABLE_SCHEMAS[:-1]))} and {READABLE_SCHEMAS[-1]}"
            return f"it is written in format {manifest.format}; this version reads {known}"
        if manifest.step != step_in(path):
            return f"{MANIFEST} belongs to another checkpoint"
        if {file.name for file in path.iterdir()} != {*manifest.files, MANIFEST}:
            return f"its files are not those that {MANIFEST} lists"
        for name, expected in manifest.files.items():
            file = path / name
            if is_link(file) or not is_file(file):
                return f"{name} is no file of its own"
            size = file.stat().st_size
            if size != expected.bytes:
                return f"{name} has {size} bytes instead of {expected.bytes}"
            if contents and sha256(file) != expected.sha256:
                return f"{name} has other contents than were written"
    except OSError as error:
        return f"{Path(error.filename or path).name} cannot be read: {error.strerror}"
    except ValueError as error:
        return f"{MANIFEST} is damaged: {error}"
    return ""


def newest_valid(folder: Path, log: Log, up_to: int | None = None) -> Path | None:
    """The valid checkpoint of the highest step, at most `up_to`; damaged ones are logged and skipped.

    None if there is no checkpoint. Raises CheckpointError if there are some and all are damaged.
    """
    standing = [path for path in list_checkpoints(folder) if up_to is None or step_in(path) <= up_to]
    problem = ""
    for path in reversed(standing):
        problem = problem_with(path)
        if not problem:
            return path
        log(f"{path.name} is damaged ({problem}); trying the one before it")
    if standing:
        raise CheckpointError(
            f"none of the {len(standing)} checkpoints in {folder} is whole",
            why=f"the oldest: {problem}",
            remedy="start again in another directory, or bring back a good copy",
        )
    return None
