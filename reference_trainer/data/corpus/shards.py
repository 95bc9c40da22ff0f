"""Tokens that lie in several files, read as one row; their check and their fingerprint."""

from __future__ import annotations

import bisect
import hashlib
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np

from planner.errors import DataError
from reference_trainer.data.corpus.formats import Array

READ = 16 * 2**20  # tokens looked at together
WHOLE = 2 * 2**30  # bytes: up to here every token is read at each start; 2 GiB take a few seconds
BLOCK = 2**15  # tokens of one sample of larger data
BLOCKS = 64  # samples of each file of larger data


class Owner(NamedTuple):
    """A file whose tokens begin at `begin` among all: for messages. In the file they begin at byte `offset`; the first
    `skipped` of them are not among these."""

    begin: int
    file: Path
    offset: int = 0
    skipped: int = 0


Owners = list[Owner]


class Shards:
    """Several rows of tokens of one type as one, sliced without being joined as a whole."""

    def __init__(self, parts: list[Array]) -> None:
        self.parts = parts
        self.starts = [0]
        for part in parts:
            self.starts.append(self.starts[-1] + len(part))
        self.dtype, self.itemsize = parts[0].dtype, parts[0].itemsize

    def __len__(self) -> int:
        return self.starts[-1]

    def __getitem__(self, wanted: slice) -> Array:
        """The tokens of a slice without a step: a view where one part holds them, else a copy."""
        begin, end, _ = wanted.indices(len(self))
        pieces = [part[a:b] for part, a, b in self._pieces(begin, end)]
        return pieces[0] if len(pieces) == 1 else joined(pieces or [self.parts[0][:0]])

    def cut(self, begin: int, end: int) -> Shards:
        """The same tokens from `begin` to `end`, still where they lie."""
        return Shards([part[a:b] for part, a, b in self._pieces(begin, end)] or [self.parts[0][:0]])

    def _pieces(self, begin: int, end: int) -> Iterator[tuple[Array, int, int]]:
        number = max(0, bisect.bisect_right(self.starts, begin) - 1)
        while number < len(self.parts) and self.starts[number] < end:
            start, part = self.starts[number], self.parts[number]
            if begin < start + len(part):
                yield part, max(0, begin - start), min(len(part), end - start)
            number += 1


Tokens = Array | Shards


def joined(pieces: Sequence[Array]) -> Array:
    """One row of rows of one type."""
    whole: Array = np.empty(sum(len(piece) for piece in pieces), pieces[0].dtype)
    np.concatenate(pieces, out=whole)
    return whole


def cut(tokens: Tokens, begin: int, end: int) -> Tokens:
    """A view of the tokens from `begin` to `end`."""
    return tokens.cut(begin, end) if isinstance(tokens, Shards) else tokens[begin:end]


def read_whole(tokens: Tokens) -> bool:
    """Whether all of the tokens are looked at when they are opened."""
    return len(tokens) * tokens.itemsize <= WHOLE


def scan(tokens: Tokens, owners: Owners, vocab: int) -> str:
    """The fingerprint, sha256 in hex. Raises DataError at the first token looked at that is not below `vocab`.

    Up to WHOLE bytes: of every token, as they lie in memory. Above: of the count, and of BLOCKS blocks of BLOCK tokens
    of each file, spread evenly from its first token to its last. Which of the two depends on the size alone.
    """
    digest = hashlib.sha256(tokens.dtype.str.encode())
    whole = read_whole(tokens)
    if not whole:
        digest.update(f"sampled {len(tokens)}".encode())
    for begin, end in _ranges(len(tokens)) if whole else _samples(len(tokens), owners):
        part = tokens[begin:end]
        if int(part.max()) >= vocab:
            raise too_large(tokens, begin + int(np.argmax(part >= vocab)), owners, vocab)
        digest.update(np.ascontiguousarray(part).data)
    return digest.hexdigest()


def too_large(tokens: Tokens, where: int, owners: Owners, vocab: int) -> DataError:
    """The error about token number `where`, with its file and its place there."""
    token = int(tokens[where : where + 1][0])
    owner = max((owner for owner in owners if owner.begin <= where), key=lambda owner: owner.begin)
    place = where - owner.begin + owner.skipped
    return DataError(
        f"token {token} in {str(owner.file)!r} does not fit a vocabulary of {vocab}",
        why=f"it is token {place} of the file, byte {owner.offset + place * tokens.itemsize}",
        remedy=f"plan a model with a vocabulary above {token}, or give other data",
    )


def _ranges(count: int) -> Iterator[tuple[int, int]]:
    for at in range(0, count, READ):
        yield at, min(count, at + READ)


def _samples(count: int, owners: Owners) -> Iterator[tuple[int, int]]:
    borders = [owner.begin for owner in owners] + [count]
    for begin, end in pairwise(borders):
        room = end - begin - BLOCK
        if room <= 0:
            if end > begin:
                yield begin, end
            continue
        for place in sorted({begin + room * n // (BLOCKS - 1) for n in range(BLOCKS)}):
            yield place, place + BLOCK
