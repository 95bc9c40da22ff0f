"""Tokens in several files, read as one sequence; their check and fingerprint."""

from __future__ import annotations

import bisect
import hashlib
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np

from planner.activity import doing
from planner.errors import DataError
from reference_trainer.data.corpus.file_tokens import FileTokens
from reference_trainer.data.corpus.formats import Array

READ_TOKENS = 2**19  # tokens looked at together: their bytes stay in the cache of the CPU
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
    """Several rows of tokens of one dtype as one; slices do not copy all of it."""

    def __init__(self, parts: Sequence[Array | FileTokens]) -> None:
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
        return Shards([_part_of(part, a, b) for part, a, b in self._overlaps(begin, end)] or [self.parts[0][:0]])

    def _overlaps(self, begin: int, end: int) -> Iterator[tuple[Array | FileTokens, int, int]]:
        number = max(0, bisect.bisect_right(self.starts, begin) - 1)
        while number < len(self.parts) and self.starts[number] < end:
            start, part = self.starts[number], self.parts[number]
            if begin < start + len(part):
                yield part, max(0, begin - start), min(len(part), end - start)
            number += 1


TokenArray = Array | FileTokens | Shards


def joined(pieces: Sequence[Array]) -> Array:
    """Join arrays of one dtype."""
    whole: Array = np.empty(sum(len(piece) for piece in pieces), pieces[0].dtype)
    np.concatenate(pieces, out=whole)
    return whole


def slice_tokens(tokens: TokenArray, begin: int, end: int) -> TokenArray:
    """A view of the tokens from `begin` to `end`."""
    return tokens.slice_tokens(begin, end) if isinstance(tokens, Shards) else _part_of(tokens, begin, end)


def _part_of(row: Array | FileTokens, begin: int, end: int) -> Array | FileTokens:
    return row.slice_tokens(begin, end) if isinstance(row, FileTokens) else row[begin:end]


def is_scanned_fully(tokens: TokenArray) -> bool:
    """Whether all tokens are checked when they are opened."""
    return len(tokens) * tokens.itemsize <= FULL_SCAN_BYTES


@doing("reading tokens for the fingerprint")
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
