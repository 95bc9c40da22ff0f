"""Tokens in several files, read as one sequence; their check and fingerprint."""

from __future__ import annotations

import bisect
import hashlib
import mmap
import os
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np

from planner.errors import DataError
from reference_trainer.data.corpus.formats import Array

READ_TOKENS = 16 * 2**20  # tokens looked at together
FULL_SCAN_BYTES = 2 * 2**30  # bytes: up to here every token is read at each start; 2 GiB take a few seconds
SAMPLE_TOKENS = 2**15  # tokens of one sample of larger data
SAMPLES_PER_FILE = 64  # samples of each file of larger data


class FileStart(NamedTuple):
    """A file whose tokens begin at index `begin` of the sequence, for messages. They begin at byte `offset`;
    the first `skipped` tokens are left out."""

    begin: int
    file: Path
    offset: int = 0
    skipped: int = 0


FileStarts = list[FileStart]


class Shards:
    """Several token arrays of one dtype as one; slices do not copy all of it."""

    def __init__(self, parts: list[Array]) -> None:
        self.parts = parts
        self.starts = [0]
        for part in parts:
            self.starts.append(self.starts[-1] + len(part))
        self.dtype, self.itemsize = parts[0].dtype, parts[0].itemsize

    def __len__(self) -> int:
        return self.starts[-1]

    def __getitem__(self, wanted: slice) -> Array:
        """The tokens of a slice without a step: a view if they are in one part, else a copy."""
        begin, end, _ = wanted.indices(len(self))
        pieces = [part[a:b] for part, a, b in self._overlaps(begin, end)]
        return pieces[0] if len(pieces) == 1 else joined(pieces or [self.parts[0][:0]])

    def slice_tokens(self, begin: int, end: int) -> Shards:
        """The tokens from `begin` to `end`, not copied."""
        return Shards([part[a:b] for part, a, b in self._overlaps(begin, end)] or [self.parts[0][:0]])

    def parts_between(self, begin: int, end: int) -> list[Array]:
        """The rows that hold the tokens from `begin` to `end`."""
        return [part for part, _, _ in self._overlaps(begin, end)]

    def _overlaps(self, begin: int, end: int) -> Iterator[tuple[Array, int, int]]:
        number = max(0, bisect.bisect_right(self.starts, begin) - 1)
        while number < len(self.parts) and self.starts[number] < end:
            start, part = self.starts[number], self.parts[number]
            if begin < start + len(part):
                yield part, max(0, begin - start), min(len(part), end - start)
            number += 1


TokenArray = Array | Shards


def joined(pieces: Sequence[Array]) -> Array:
    """Join arrays of one dtype."""
    whole: Array = np.empty(sum(len(piece) for piece in pieces), pieces[0].dtype)
    np.concatenate(pieces, out=whole)
    return whole


def slice_tokens(tokens: TokenArray, begin: int, end: int) -> TokenArray:
    """A view of the tokens from `begin` to `end`."""
    return tokens.slice_tokens(begin, end) if isinstance(tokens, Shards) else tokens[begin:end]


def refuse_shrunk(tokens: TokenArray, begin: int, end: int) -> None:
    """Raises DataError if a mapped file with these tokens is shorter than it was: reading would kill the process."""
    for part in tokens.parts_between(begin, end) if isinstance(tokens, Shards) else [tokens]:
        if isinstance(part, np.memmap) and isinstance(part.filename, Path | str):
            # a slice has the offset and the map of the whole; numpy shows the map's length nowhere else
            mapped = part.offset - part.offset % mmap.ALLOCATIONGRANULARITY + len(cast(Any, part)._mmap)
            size = os.stat(part.filename).st_size
            if size < mapped:
                raise DataError(
                    f"{str(part.filename)!r} has been cut short since it was opened",
                    why=f"it had {mapped} bytes, and has {size}",
                    remedy="bring the file back as it was, then continue with --resume",
                )


def is_scanned_fully(tokens: TokenArray) -> bool:
    """Whether all tokens are checked when they are opened."""
    return len(tokens) * tokens.itemsize <= FULL_SCAN_BYTES


def scan(tokens: TokenArray, file_starts: FileStarts, vocab: int) -> str:
    """The fingerprint, sha256 in hex. Raises DataError at the first checked token that is not below `vocab`.

    Up to WHOLE bytes: of every token. Above: of the number of tokens, and of BLOCKS blocks of BLOCK tokens
    of each file, spread evenly from its first token to its last. Only the size decides which.
    """
    digest = hashlib.sha256(tokens.dtype.str.encode())
    whole = is_scanned_fully(tokens)
    if not whole:
        digest.update(f"sampled {len(tokens)}".encode())
    for begin, end in _ranges(len(tokens)) if whole else _samples(len(tokens), file_starts):
        part = tokens[begin:end]
        if int(part.max()) >= vocab:
            raise vocab_error(tokens, begin + int(np.argmax(part >= vocab)), file_starts, vocab)
        digest.update(np.ascontiguousarray(part).data)
    return digest.hexdigest()


def vocab_error(tokens: TokenArray, where: int, file_starts: FileStarts, vocab: int) -> DataError:
    """The error about token `where`, with its file and position."""
    token = int(tokens[where : where + 1][0])
    file_start = max((f for f in file_starts if f.begin <= where), key=lambda f: f.begin)
    place = where - file_start.begin + file_start.skipped
    return DataError(
        f"token {token} in {str(file_start.file)!r} does not fit a vocabulary of {vocab}",
        why=f"it is token {place} of the file, byte {file_start.offset + place * tokens.itemsize}",
        remedy=f"plan a model with a vocabulary above {token}, or give other data",
    )


def _ranges(count: int) -> Iterator[tuple[int, int]]:
    for at in range(0, count, READ_TOKENS):
        yield at, min(count, at + READ_TOKENS)


def _samples(count: int, file_starts: FileStarts) -> Iterator[tuple[int, int]]:
    borders = [file_start.begin for file_start in file_starts] + [count]
    for begin, end in pairwise(borders):
        room = end - begin - SAMPLE_TOKENS
        if room <= 0:
            if end > begin:
                yield begin, end
            continue
        for place in sorted({begin + room * n // (SAMPLES_PER_FILE - 1) for n in range(SAMPLES_PER_FILE)}):
            yield place, place + SAMPLE_TOKENS
