"""Writes shards into a temporary directory, which is renamed when everything is on the disk."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np

from planner.errors import FileError
from reference_trainer.data.corpus.directory import META, UNFINISHED
from reference_trainer.data.corpus.formats import HEADER_BYTES, header
from reference_trainer.data.corpus.tokenizers import TokenIds
from reference_trainer.device.disk import sync

LOCK = "lock"


@dataclass(slots=True)
class SplitWriter:
    """One side of the split: its shards `NAME_000000.bin` …, and their counts."""

    directory: Path
    name: str
    dtype: str
    shard_tokens: int
    documents: int = 0
    tokens: int = 0
    text_bytes: int = 0
    shards: list[dict[str, Any]] = field(default_factory=list)
    _file: IO[bytes] | None = None
    _room: int = 0
    _digest: Any = None

    def add(self, ids: TokenIds, end_of_text: int, size: int) -> None:
        """Add a document of `size` bytes of text and an end of text; a shard may end inside it."""
        self.documents += 1
        self.text_bytes += size
        whole = np.empty(len(ids) + 1, self.dtype)
        whole[:-1], whole[-1] = ids, end_of_text
        while len(whole):
            if self._file is None:
                self._begin()
            now, whole = whole[: self._room], whole[self._room :]
            self._write(now)
            if not self._room:
                self.close()

    def _begin(self) -> None:
        name = f"{self.name}_{len(self.shards):06d}.bin"
        self.shards.append({"name": name, "tokens": 0, "largest": 0, "sha256": ""})
        self._room, self._digest = self.shard_tokens, hashlib.sha256()
        self._file = (self.directory / name).open("xb")
        self._file.write(bytes(HEADER_BYTES))  # the header follows when the count is known

    def _write(self, tokens: TokenIds) -> None:
        assert self._file is not None
        content = tokens.tobytes()
        self._file.write(content)
        self._digest.update(content)
        self._room -= len(tokens)
        self.tokens += len(tokens)
        shard = self.shards[-1]
        shard["tokens"] += len(tokens)
        shard["largest"] = max(shard["largest"], int(tokens.max()))

    def __enter__(self) -> SplitWriter:
        return self

    def __exit__(self, *_: object) -> None:
        """After an error the open shard is closed as it is."""
        if self._file is not None:
            self._file.close()

    def close(self) -> None:
        """Finish the open shard."""
        if self._file is None:
            return
        shard = self.shards[-1]
        shard["sha256"] = self._digest.hexdigest()
        self._file.seek(0)
        self._file.write(header(shard["tokens"], self.dtype))
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        self._file = None


@contextmanager
def write_then_rename(out: Path) -> Iterator[Path]:
    """A temporary directory next to `out`, renamed to `out` at the end of the block, and deleted after an error.

    Leftovers of a killed process are deleted first. Raises FileError if `out` exists, if another process writes
    it, or if the disk fails.
    """
    if out.exists() or out.is_symlink():
        raise FileError(
            f"{out} exists already", why="nothing is overwritten", remedy="choose another directory, or remove it"
        )
    work = out.parent / f".{out.name}{UNFINISHED}"
    try:
        work.mkdir(parents=True, exist_ok=True)
        with (work / LOCK).open("a") as held:
            _lock(held, out)
            for old in work.iterdir():
                if old.name != LOCK:
                    old.unlink()
            try:
                yield work
                (work / LOCK).unlink()
                sync(work)
                os.rename(work, out)
                sync(out.parent)
            except BaseException:
                shutil.rmtree(work, ignore_errors=True)
                raise
    except OSError as error:
        raise FileError(
            f"{out} cannot be written",
            why=str(error),
            remedy="check that its parent is writable and has room; nothing was left there",
        ) from error


def _lock(held: IO[str], out: Path) -> None:
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise FileError(
            f"another process prepares {out}", why="it holds the lock", remedy="wait for it, or choose another name"
        ) from error


def write_meta(directory: Path, meta: dict[str, Any]) -> None:
    """meta.json, flushed to the disk."""
    with (directory / META).open("xb") as file:
        file.write(json.dumps(meta, indent=2).encode())
        file.flush()
        os.fsync(file.fileno())
