"""One checkpoint that several ranks write: each its own files, one manifest, complete or absent as any other.

    the first rank          makes the temporary folder          → all
    every rank              writes and hashes its files         → the first
    the first rank          writes the manifest, renames        → all
    every rank              reads its files back                → the first

If anything fails anywhere, all ranks raise FileError, and the old checkpoints are untouched.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from planner.errors import FileError, PlanError
from reference_trainer.checkpoint.atomic import (
    Hashes,
    checkpoint_folder,
    hashes_of,
    problem_with,
    publish,
    sha256,
    temporary_folder,
    wait_until_visible,
)
from reference_trainer.distributed.ranks import Ranks

WriteFiles = Callable[[Path], list[str]]  # makes this rank's files in a folder, and returns their names


def publish_together(folder: Path, step: int, write: WriteFiles, ranks: Ranks) -> Path:
    """As `publish`, by all ranks at once. Raises FileError, on every rank, if a disk fails or returns other bytes."""
    own: Hashes = {}
    all_files: Hashes = {}

    def fill(new: Path) -> None:
        why = ""
        try:
            own.update(hashes_of(new / name for name in write(new)))
        except Exception as error:  # whatever it is, the others wait for an answer
            why = f"rank {ranks.rank}: {error}"
        told = [json.loads(text) for text in ranks.gather(json.dumps({"files": own, "why": why}))]
        failed = next((each["why"] for each in told if each["why"]), "")
        if failed:
            raise OSError(failed)
        for each in told:
            all_files.update(each["files"])

    def fill_first(new: Path) -> None:
        ranks.share("{}")
        fill(new)

    final = checkpoint_folder(folder, step)
    if ranks.leads:
        try:
            publish(folder, step, fill_first, all_files, lambda path: problem_with(path, contents=False))
        except PlanError as error:
            ranks.share(json.dumps({"what": error.what, "why": error.why, "remedy": error.remedy}))
            raise
        ranks.share("{}")
    else:
        _obey(ranks)
        with suppress(OSError):  # the first rank has heard of it, and says what comes of it
            fill(temporary_folder(folder, step))
        _obey(ranks)
        wait_until_visible(final)
    changed = _changed_in(final, own)
    told = ranks.gather(json.dumps(f"rank {ranks.rank}: {changed}" if changed else ""))
    problem = next(filter(None, map(json.loads, told)), "")
    if problem:
        raise FileError(f"the checkpoint just written to {final} reads back differently", why=problem)
    return final


def _changed_in(folder: Path, own: Hashes) -> str:
    """What is wrong with this rank's files, read back; "" for nothing."""
    try:
        changed = next((name for name, entry in own.items() if sha256(folder / name) != entry["sha256"]), "")
    except OSError as error:
        return f"{Path(error.filename or folder).name} cannot be read: {error.strerror}"
    return changed and f"{changed} has other contents than were written"


def _obey(ranks: Ranks) -> None:
    """Wait for the first rank. Raises FileError if it says that the checkpoint has failed."""
    told = json.loads(ranks.share())
    if told:
        raise FileError(told["what"], why=told["why"], remedy=told["remedy"])
