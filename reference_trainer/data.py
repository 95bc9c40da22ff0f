"""Training tokens, and which of them each sample holds.

Three sources: nothing (the Python standard library's own sources, so that a first run needs no download), text (a file
or a folder, one token per byte), and a `.bin` (uint16, little-endian, no header, as nanoGPT writes it).
A sample is a block of `seq` tokens with its targets one token further on; blocks do not overlap, so that an epoch
trains on every token once. Which block the sample with global index i holds is a pure function of (seed, i): any
micro-batch split sees the same global batch, and a resumed run finds its place at once, with no state to save.
"""

from __future__ import annotations

import hashlib
import os
import sysconfig
from collections.abc import Container, Iterator
from dataclasses import dataclass
from pathlib import Path
from platform import python_version

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from planner.config import RunConfig
from planner.errors import DataError
from planner.units import format_count

Tokens = npt.NDArray[np.uint8] | npt.NDArray[np.uint16]

BYTE_VALUES = 256
END_OF_TEXT = 256  # the first value that no byte has; without room for it a newline stands between texts
BUILT_IN_LIMIT = 16 * 2**20  # bytes: some 4 M words are enough to see a small model learn, and are read in 0.1 s
SCAN = 16 * 2**20  # tokens looked at together
TEXT_SUFFIXES = (".md", ".py", ".txt")
NOT_PROSE = {"site-packages", "dist-packages", "test", "tests", "__pycache__"}


@dataclass(frozen=True, slots=True)
class TokenData:
    """`tokens` [N] (on disk where they are a .bin), their sha256, one line about them, targets in one epoch."""

    tokens: Tokens
    fingerprint: str
    description: str
    valid_tokens: int
    validation: TokenData | None = None


def open_data(path: Path | None, vocab: int, seq: int) -> TokenData:
    """The tokens at `path`, or of the built-in text for None; every token is checked to be below `vocab`.

    Raises DataError for a path that is missing, empty or unreadable, fewer than seq + 1 tokens, or a token too large.
    """
    try:
        if path is None:
            tokens, owners, name = _built_in(vocab)
        elif path.suffix == ".bin":
            tokens, owners, name = _token_file(path)
        else:
            tokens, owners, name = _text_at(path, vocab)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        raise DataError(
            f"cannot read the training data at {str(path)!r}",
            why=str(error),
            remedy="give a text file, a folder of text, or a .bin of uint16 tokens",
        ) from error
    if len(tokens) < seq + 1:
        raise DataError(
            f"{name} holds {len(tokens)} tokens, too few for one sequence of {seq}",
            why=f"a sample is {seq} tokens and the one that follows them: {seq + 1}",
            remedy="give more data, or plan with a smaller --seq",
        )
    fingerprint = _scan(tokens, owners, vocab)
    samples = (len(tokens) - 1) // seq
    description = f"{name}: {format_count(len(tokens))} tokens, {samples} samples of {seq}"
    return TokenData(tokens, fingerprint, description, samples * seq)


def batch(data: TokenData, config: RunConfig, sample_index_start: int, count: int) -> tuple[Tensor, Tensor]:
    """ids and targets, int64 [count, seq], of the samples with global indices start … start + count - 1."""
    seq, seed = config.training.seq, config.training.seed
    samples = data.valid_tokens // seq
    rows = np.empty((count, seq + 1), dtype=np.int64)
    for row, index in enumerate(range(sample_index_start, sample_index_start + count)):
        start = slot(seed, index, samples) * seq
        rows[row] = data.tokens[start : start + seq + 1]
    both = torch.from_numpy(rows)
    return both[:, :-1].contiguous(), both[:, 1:].contiguous()


def slot(seed: int, index: int, samples: int) -> int:
    """Which of `samples` blocks the sample with global index `index` holds: within an epoch, each exactly once.

    A four-round Feistel network permutes the smallest square of a power of two that covers `samples`; a value outside
    is permuted again until it falls inside (Black and Rogaway 2002, "cycle walking"). On the smallest sets the shuffle
    is crude, but always a permutation.
    """
    epoch, place = divmod(index, samples)
    keys = _round_keys(seed, epoch)
    half = max(1, (max(samples - 1, 1).bit_length() + 1) // 2)
    while True:
        left, right = divmod(place, 1 << half)
        for key in keys:
            left, right = right, left ^ (_mix(right ^ key) & ((1 << half) - 1))
        place = (left << half) | right
        if place < samples:
            return place


def _round_keys(seed: int, epoch: int) -> tuple[int, ...]:
    digest = hashlib.sha256(f"{seed}/{epoch}".encode()).digest()
    return tuple(int.from_bytes(digest[at : at + 8], "little") for at in range(0, 32, 8))


def _mix(x: int) -> int:
    """splitmix64's finaliser: each bit of the 64 depends on all (Steele, Lea and Flood 2014)."""
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & 0xFFFFFFFFFFFFFFFF
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & 0xFFFFFFFFFFFFFFFF
    return x ^ (x >> 31)


Owners = list[tuple[int, Path]]  # where each file begins among the tokens, for the message about a bad one


def _built_in(vocab: int) -> tuple[Tokens, Owners, str]:
    root = Path(sysconfig.get_path("stdlib"))
    files = _below(root, (".py",), skip=NOT_PROSE)
    if not files:
        raise DataError(
            "this Python has no standard-library sources to train on",
            why=f"no .py file lies below {root}",
            remedy="give data of your own with --data",
        )
    tokens, owners = _joined(files, vocab, BUILT_IN_LIMIT)
    return tokens, owners, f"sources of Python {python_version()}'s standard library"


def _text_at(path: Path, vocab: int) -> tuple[Tokens, Owners, str]:
    files = _below(path, TEXT_SUFFIXES) if path.is_dir() else [path]
    if not files:
        raise DataError(
            f"the folder {str(path)!r} holds no text",
            why=f"files that end in {', '.join(TEXT_SUFFIXES)} are read, in it and below",
            remedy="name a single file (.bin for tokens), or another folder",
        )
    tokens, owners = _joined(files, vocab, None)
    return tokens, owners, path.name


def _token_file(path: Path) -> tuple[Tokens, Owners, str]:
    size = path.stat().st_size
    if size % 2:
        raise DataError(
            f"{str(path)!r} has an odd size, {size} bytes",
            why="a .bin is a row of two-byte tokens (uint16, little-endian, no header): this one is cut short",
            remedy="write it again, or give the text itself",
        )
    tokens = np.memmap(path, dtype="<u2", mode="r") if size else np.empty(0, dtype="<u2")
    return tokens, [(0, path)], path.name


def _below(root: Path, suffixes: tuple[str, ...], skip: Container[str] = ()) -> list[Path]:
    """Files below `root` with one of the suffixes, in the order of their relative paths; no hidden ones."""
    found: list[Path] = []
    for folder, folders, names in os.walk(root):
        folders[:] = [name for name in folders if not name.startswith(".") and name not in skip]
        found += [Path(folder, name) for name in names if name.endswith(suffixes) and not name.startswith(".")]
    return sorted(found, key=lambda file: file.relative_to(root).as_posix())


def _joined(files: list[Path], vocab: int, limit: int | None) -> tuple[Tokens, Owners]:
    """The files' bytes one after the other, each followed by an end of text, cut at `limit` tokens."""
    room = vocab > END_OF_TEXT
    end = np.array([END_OF_TEXT], np.uint16) if room else np.array([ord("\n")], np.uint8)
    parts: list[Tokens] = []
    owners: Owners = []
    total = 0
    for file in files:
        content = file.read_bytes()
        if b"\0" in content:
            raise DataError(
                f"{str(file)!r} is not text",
                why=f"it has a zero byte at offset {content.index(0)}",
                remedy="give text; a file of uint16 tokens must end in .bin",
            )
        owners.append((total, file))
        part = np.frombuffer(content, np.uint8)
        parts += [part.astype(np.uint16) if room else part, end]
        total += len(part) + 1
        if limit is not None and total >= limit:
            break
    joined = np.empty(total, end.dtype)
    np.concatenate(parts, out=joined)
    return joined[:limit], owners


def _scan(tokens: Tokens, owners: Owners, vocab: int) -> str:
    """sha256 of the tokens as they lie in memory, hex. Raises DataError at the first token that is not below vocab."""
    digest = hashlib.sha256(tokens.dtype.str.encode())
    for at, part in _parts(tokens):
        if int(part.max()) >= vocab:
            where = at + int(np.argmax(part >= vocab))
            begin, file = max((owner for owner in owners if owner[0] <= where), key=lambda owner: owner[0])
            raise DataError(
                f"token {int(tokens[where])} in {str(file)!r} does not fit a vocabulary of {vocab}",
                why=f"it is token {where - begin} of the file, byte {(where - begin) * tokens.itemsize}",
                remedy=f"plan a model with a vocabulary above {int(tokens[where])}, or give other data",
            )
        digest.update(np.ascontiguousarray(part).data)
    return digest.hexdigest()


def _parts(tokens: Tokens) -> Iterator[tuple[int, Tokens]]:
    for at in range(0, len(tokens), SCAN):
        yield at, tokens[at : at + SCAN]
