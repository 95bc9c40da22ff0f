"""Training tokens, and which of them are in each sample.

Sources (docs/how-to/data.md): nothing (the Python standard library's own sources, so that a first run needs no
download), text, JSON-lines, folders of both, nanoGPT's `.bin`, llm.c's shards, and what `gptplan data` prepared.
A sample is a block of `seq` tokens; its targets are shifted by one token. Blocks do not overlap, so an epoch
trains on every token once. The block of the sample with global index i is a pure function of (seed, i): any
micro-batch split reads the same global batch, and a resumed run continues at the right place without stored state.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from planner.config.run import RunConfig
from planner.errors import DataError
from planner.units import format_count
from reference_trainer.data.corpus.listing import ReadSummary
from reference_trainer.data.corpus.shards import TokenArray, is_scanned_fully, scan
from reference_trainer.data.corpus.sources import ReadOptions, Source, open_source, split_off, without_validation
from reference_trainer.model.losses import IGNORED_TARGET


@dataclass(frozen=True, slots=True)
class TokenData:
    """`tokens` [N] (of files they are read when they are sliced), their fingerprint, a one-line description, and how
    many are targets of complete samples in one epoch.

    end_of_text: its id, None if unknown. validation: the validation part, if requested.
    bytes_per_token: mean bytes of text per token, None if unknown; for bits per byte.
    vocab: the model's, where not every token was checked at the start: then each batch is checked against it.
    summary: files read and not read; None of the built-in text, which is left out on purpose where it is long.
    """

    tokens: TokenArray
    fingerprint: str
    description: str
    valid_tokens: int
    end_of_text: int | None = None
    validation: TokenData | None = None
    bytes_per_token: float | None = None
    vocab: int | None = None
    summary: ReadSummary | None = None


class MicroBatch(NamedTuple):
    """ids and targets, int64 [B, T]; a target of -100 does not count, and `valid` says how many do.

    documents: int64 [B, T], the document of each position within its sample (0, 1, …) under document masking;
    else None.
    """

    ids: Tensor
    targets: Tensor
    documents: Tensor | None
    valid: int

    def moved(self, move: Callable[[Tensor], Tensor]) -> MicroBatch:
        """The same micro-batch with every tensor moved."""
        documents = None if self.documents is None else move(self.documents)
        return MicroBatch(move(self.ids), move(self.targets), documents, self.valid)


def open_data(
    path: Path | None, vocab: int, seq: int, hold_out: bool = False, reading: ReadOptions | None = None
) -> TokenData:
    """The tokens at `path`, or of the built-in text for None.

    hold_out: `validation` is the files named for it, else the last 1/10 of the tokens, which are then not
    trained on. Without it all of a text is trained on, and files named for validation are not read.
    Raises DataError for a path that is missing, empty, damaged or unreadable, fewer than seq + 1 tokens, or a token
    that is not below `vocab`.
    """
    try:
        source = open_source(path, vocab, reading or ReadOptions())
        source = split_off(source) if hold_out else without_validation(source)
        validation = None if source.validation is None else _opened(source.validation, vocab, seq)
        return replace(_opened(source, vocab, seq), validation=validation)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        raise DataError(
            f"cannot read the training data at {str(path)!r}",
            why=str(error),
            remedy="give text, JSON-lines, Parquet, a folder of them, a .bin of tokens, or a prepared directory",
        ) from error


def _opened(source: Source, vocab: int, seq: int) -> TokenData:
    tokens, name = source.tokens, source.name
    if len(tokens) < seq + 1:
        raise DataError(
            f"{name} holds {len(tokens)} tokens, too few for one sequence of {seq}",
            why=f"a sample is {seq} tokens and the one that follows them: {seq + 1}",
            remedy="give more data, or plan with a smaller --seq",
        )
    fingerprint = scan(tokens, source.file_starts, vocab)
    if source.fingerprint not in (None, fingerprint):
        raise DataError(
            f"the tokens of {name} are not those that were prepared",
            why=f"their fingerprint is {fingerprint[:16]}…, meta.json says {str(source.fingerprint)[:16]}…",
            remedy="prepare the data again, or take it from where it is whole",
        )
    samples = (len(tokens) - 1) // seq
    return TokenData(
        tokens,
        fingerprint,
        f"{name}: {format_count(len(tokens))} tokens, {samples} samples of {seq}",
        samples * seq,
        end_of_text=source.end_of_text,
        bytes_per_token=None if source.source_bytes is None else source.source_bytes / len(tokens),
        vocab=None if is_scanned_fully(tokens) else vocab,
        summary=source.summary,
    )


def batch(data: TokenData, config: RunConfig, sample_index_start: int, count: int) -> MicroBatch:
    """The samples with global indices start … start + count - 1, one row each.

    Raises DataError for a token outside the model's vocabulary, if the data was too large to be checked at the start.
    """
    return batch_of_rows(sample_rows(data, config, sample_index_start, count), data, config)


def batch_of_rows(rows: npt.NDArray[np.int64], data: TokenData, config: RunConfig) -> MicroBatch:
    """The micro-batch of rows [B, seq + 1] that `sample_rows` read. Raises DataError as `batch`."""
    if data.vocab is not None and int(rows.max(initial=0)) >= data.vocab:  # before the device sees it
        raise DataError(
            f"a token of {data.description} does not fit a vocabulary of {data.vocab}",
            why=f"it is {int(rows.max())}; of data of this size only samples are looked at before training",
            remedy="gptplan data PATH reads all of it and names the largest",
        )
    ids, targets = rows[:, :-1], rows[:, 1:]
    if not config.training.document_masking:
        both = torch.from_numpy(rows)
        return MicroBatch(both[:, :-1].contiguous(), both[:, 1:].contiguous(), None, ids.size)
    ends = ids == end_of_text_of(data)
    targets = np.where(ends, IGNORED_TARGET, targets)
    documents = documents_of(ends)
    valid = int(targets.size - ends.sum())
    parts = [torch.from_numpy(np.ascontiguousarray(part)) for part in (ids, targets, documents)]
    return MicroBatch(parts[0], parts[1], parts[2], valid)


def count_targets(rows: npt.NDArray[np.int64], data: TokenData) -> int:
    """How many targets of these samples count under document masking: all but those that follow an end of text."""
    ids = rows[:, :-1]
    return int(ids.size - np.count_nonzero(ids == end_of_text_of(data)))


def sample_rows(data: TokenData, config: RunConfig, sample_index_start: int, count: int) -> npt.NDArray[np.int64]:
    """[count, seq + 1]: each sample's tokens and the one after them."""
    seq, seed = config.training.seq, config.training.seed
    samples = data.valid_tokens // seq
    rows = np.empty((count, seq + 1), dtype=np.int64)
    for row, index in enumerate(range(sample_index_start, sample_index_start + count)):
        start = shuffled_index(seed, index, samples) * seq
        rows[row] = data.tokens[start : start + seq + 1]
    return rows


def documents_of(ends: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
    """[B, T] the document of each position; an end of text belongs to the document that it ends."""
    before = np.zeros(ends.shape, np.int64)
    np.cumsum(ends[:, :-1], axis=1, out=before[:, 1:])
    return before


def end_of_text_of(data: TokenData) -> int:
    """The end-of-text token. Raises DataError if it is unknown: then documents cannot be masked."""
    if data.end_of_text is None:
        raise DataError(
            "document_masking = true needs to know which token ends a text",
            why=f"of {data.description.partition(':')[0]} it is not known; among bytes alone there is no such token",
            remedy="plan with --vocab 257 or more for bytes, give --eot for token files, or --document-masking no",
        )
    return data.end_of_text


def shuffled_index(seed: int, index: int, samples: int) -> int:
    """The block of the sample with global index `index`; each of `samples` blocks exactly once per epoch.

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
