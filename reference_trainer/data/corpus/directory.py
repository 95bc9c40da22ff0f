"""Which files of a token directory are for training, and which for validation.

Three kinds: one that `gptplan data` prepared (described by meta.json), nanoGPT's (train.bin, val.bin), and llm.c's
(`*_train_000001.bin`, `*_val_000000.bin`).
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from planner.errors import DataError
from planner.paths import exists, is_folder
from reference_trainer.data.corpus.listing import SkippedFile, skipped_beside
from reference_trainer.data.corpus.meta_file import FORMAT, META, VERSION, load_meta, unusable_meta

UNFINISHED = ".preparing"  # how the name of a directory ends while it is written
TRAIN, VALIDATION = {"train", "training"}, {"val", "valid", "validation"}


@dataclass(frozen=True, slots=True)
class TokenFiles:
    """Files in the order of their tokens; `meta` of a prepared directory, else None.

    skipped: what else lies in the directory, and is not read.
    """

    train: tuple[Path, ...]
    validation: tuple[Path, ...]
    meta: dict[str, Any] | None
    skipped: tuple[SkippedFile, ...] = ()


def token_files(path: Path) -> TokenFiles | None:
    """The token files at `path`: a .bin with its validation file, or a directory; None if there are none.

    Raises DataError for an unfinished or damaged directory, a name without train or val, and a file under two names.
    """
    if not is_folder(path):
        return _beside(path) if path.suffix == ".bin" else None
    if os.path.realpath(path).endswith(UNFINISHED):
        raise DataError(
            f"{str(path)!r} was never finished",
            why="gptplan data gives a directory its name when everything in it is written",
            remedy="prepare it again",
        )
    if exists(path / META):
        return _prepared(path)
    files = sorted(file for file in path.iterdir() if file.suffix == ".bin" and not file.name.startswith("."))
    if not files:
        return None
    _refuse_twins(files)
    validation = tuple(file for file in files if _words(file) & VALIDATION)
    named = tuple(file for file in files if _words(file) & TRAIN and file not in validation)
    rest = [file for file in files if file not in validation and file not in named]
    if named and rest:
        raise DataError(
            f"{rest[0].name!r} in {str(path)!r} is named neither for training nor for validation",
            why="beside it are files that are, and a guess would train on the wrong tokens",
            remedy="take it out, or give it train or val as a part of its name",
        )
    if not named and not rest:
        raise DataError(
            f"{str(path)!r} holds validation tokens only", why=f"such as {validation[0].name}", remedy="add a train.bin"
        )
    skipped = skipped_beside(path, set(files), _why_not_tokens)
    return TokenFiles(named or tuple(rest), validation, None, skipped)


def _why_not_tokens(file: Path) -> str:
    if file.suffix == ".bin":
        return "it lies in a subfolder, and only the folder itself is read for tokens"
    return "the files of tokens are read instead"


def _words(file: Path) -> set[str]:
    return set(re.split(r"[^a-z]+", file.stem.lower()))


def _beside(path: Path) -> TokenFiles:
    """A single .bin; its validation file is a sibling with val instead of train in its name."""
    validation: list[Path] = []
    if _words(path) & TRAIN and is_folder(path.parent):
        wanted = _plain(path.stem, TRAIN)
        siblings = sorted(file for file in path.parent.glob("*.bin") if _words(file) & VALIDATION)
        validation = [file for file in siblings if _plain(file.stem, VALIDATION) == wanted]
        _refuse_twins([path, *validation])
    return TokenFiles((path,), tuple(validation), None)


def _plain(stem: str, words: set[str]) -> str:
    """The name without train or val and without the shard number."""
    kept = [part for part in re.split(r"[^a-z0-9]+", stem.lower()) if part not in words and not part.isdigit()]
    return "_".join(kept)


def _prepared(path: Path) -> TokenFiles:
    meta = load_meta(path)
    parts = (meta[part]["shards"] for part in ("train", "validation"))
    train, validation = (tuple(path / shard["name"] for shard in shards) for shards in parts)
    if not train:
        raise unusable_meta(path, f"it is not {FORMAT} of version {VERSION} with at least one shard, all beside it")
    _refuse_twins([*train, *validation])
    known = {*train, *validation, path / META}
    return TokenFiles(train, validation, meta, skipped_beside(path, known, lambda _: f"{META} does not list it"))


def _refuse_twins(files: list[Path]) -> None:
    """A file under two names, such as a link, would be trained on twice, or be in both splits."""
    seen: dict[tuple[int, int], Path] = {}
    for file in files:
        found = file.stat()
        other = seen.setdefault((found.st_dev, found.st_ino), file)
        if other is not file:
            raise DataError(
                f"{str(other)!r} and {file.name!r} are one file under two names",
                why="its tokens would be counted twice",
                remedy="take one of them out",
            )
