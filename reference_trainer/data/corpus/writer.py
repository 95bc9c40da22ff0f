"""Writes shards into a temporary directory, which is renamed when everything is on the disk."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np

from planner.bounds import MOST_SHARDS, refuse_more_than
from planner.errors import FileError
from planner.own_files import empty_own_folder, not_ours, open_own, open_own_folder
from reference_trainer.data.corpus.directory import UNFINISHED
from reference_trainer.data.corpus.formats import HEADER_BYTES, header
from reference_trainer.data.corpus.meta_file import META
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
        refuse_more_than(
            MOST_SHARDS, len(self.shards) + 1, f"shards of --shard-tokens {self.shard_tokens:,}", "each is a file"
        )
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

    Leftovers of a killed process are deleted first: a folder with our lock and nothing but files of our names. Another
    folder, or a link, in its place is left alone. Raises FileError if `out` exists, if another process writes it, if
    what is in the place of the temporary directory is not ours, or if the disk fails.
    """
    if os.path.lexists(out):
        raise FileError(
            f"{out} exists already", why="nothing is overwritten", remedy="choose another directory, or remove it"
        )
    work = out.parent / f".{out.name}{UNFINISHED}"
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with suppress(FileExistsError):
            work.mkdir()
        with _opened_work(work, out) as folder:
            empty_own_folder(folder, _is_our_file, kept=(LOCK,))
            try:
                yield work
                sync(work)
                os.rename(work, out)
            except BaseException:
                with suppress(OSError):
                    empty_own_folder(folder, _is_our_file, kept=(LOCK,))
                    os.unlink(LOCK, dir_fd=folder)
                    os.rmdir(work)
                raise
            os.unlink(LOCK, dir_fd=folder)  # now: who waits for it must not find an unlocked folder under the old name
            sync(out)
            sync(out.parent)
    except OSError as error:
        raise FileError(
            f"{out} cannot be written",
            why=str(error),
            remedy="check that its parent is writable and has room; nothing was left there",
        ) from error


@contextmanager
def _opened_work(work: Path, out: Path) -> Iterator[int]:
    """The descriptor of the temporary directory, locked. Raises FileError for one that is another's."""
    try:
        folder = open_own_folder(work)
    except OSError as error:
        raise _not_our_folder(work, error.strerror or str(error)) from None
    try:
        stranger = not_ours(folder, lambda name: name == LOCK or _is_our_file(name))
        if stranger:
            raise _not_our_folder(work, f"it holds {stranger!r}, which gptplan did not make")
        if LOCK not in os.listdir(folder) and os.listdir(folder):
            raise _not_our_folder(work, f"it has no {LOCK}, which gptplan writes first")
        with os.fdopen(open_own(LOCK, os.O_RDWR | os.O_CREAT, dir_fd=folder), "r+b") as held:
            _lock(held, out)
            if LOCK not in os.listdir(folder):  # the process that held it has just given the folder its name
                raise _in_use(out)
            yield folder
    finally:
        os.close(folder)


def _is_our_file(name: str) -> bool:
    return name == META or re.fullmatch(r"(train|val)_\d{6,}\.bin", name) is not None


def _not_our_folder(work: Path, why: str) -> FileError:
    return FileError(
        f"{work} is in the place of a temporary directory", why=why, remedy="take it away, or give another -o"
    )


def _lock(held: IO[bytes], out: Path) -> None:
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise _in_use(out) from error


def _in_use(out: Path) -> FileError:
    return FileError(
        f"another process prepares {out}", why="it holds the lock", remedy="wait for it, or choose another name"
    )


def write_meta(directory: Path, meta: dict[str, Any]) -> None:
    """meta.json, flushed to the disk."""
    with (directory / META).open("xb") as file:
        file.write(json.dumps(meta, indent=2).encode())
        file.flush()
        os.fsync(file.fileno())
