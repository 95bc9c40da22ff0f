"""`gptplan data`: text to shards of tokens, with a validation split. Text is read, tokenized and written as a stream.

A document goes to the validation split if the first 8 bytes of its sha256, as a fraction of 2^64, are below the
requested fraction. The split depends only on the text, so two copies of a text are never on both sides.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from planner.activity import doing
from planner.errors import DataError, InputError
from planner.log import LOG_EVERY_SECONDS, Log
from planner.units import format_bytes, format_count
from reference_trainer.data.corpus.file_tokens import FileTokens, OpenFile
from reference_trainer.data.corpus.formats import HEADER_BYTES, MAX_SHARD_TOKENS
from reference_trainer.data.corpus.listing import (
    Listing,
    ReadSummary,
    SkippedFile,
    skipped_lines,
    summary_record,
    text_files,
)
from reference_trainer.data.corpus.meta_file import FORMAT, VERSION
from reference_trainer.data.corpus.shards import FileStart, FileStarts, Shards, scan
from reference_trainer.data.corpus.texts import TextDocument, documents, source_bytes
from reference_trainer.data.corpus.tokenizers import Tokenizer, load_tokenizer
from reference_trainer.data.corpus.writer import SplitWriter, write_meta, write_then_rename

SHARD_TOKENS = 10**8  # as llm.c's
VAL_SHARE = 0.01
TOKENIZE_BYTES = 2**20  # bytes of text that are tokenized at once
ESTIMATE_BYTES = 2**20  # bytes of source from which the tokens of all of it are estimated
MAX_VALIDATION_SHARE = 0.5  # a larger part is not held out for --val-tokens
SPLIT_RULE = "a document is held out where the first 8 bytes of its sha256, big-endian, are below share * 2^64"
SINGLE_DOCUMENT = "one document: its last part is held out, from the first line that begins in it"


@dataclass(frozen=True, slots=True)
class PrepareOptions:
    """Options of `prepare`. At most one of val_share and val_tokens; neither: 1 % is held out."""

    sources: tuple[Path, ...]
    out: Path
    tokenizer: str = "byte"
    text_key: str = "text"
    end_of_text: int | None = None
    val_share: float | None = None
    val_tokens: int | None = None
    shard_tokens: int = SHARD_TOKENS


def prepare(options: PrepareOptions, log: Log = lambda line: None) -> dict[str, Any]:
    """Write the directory `options.out` and return its meta.json. `log` gets a line every 10 s.

    Raises InputError for contradictions, DataError for sources that cannot be used, FileError if `out` exists or
    cannot be written; then no files are left.
    """
    _refuse(options)
    tokenizer = load_tokenizer(options.tokenizer, options.end_of_text)
    try:
        found = [text_files(source, options.text_key) for source in options.sources]
        files = [file for listing in found for file in listing.files]
        _refuse_twice(files)
        share = _share(options, files, tokenizer)
        dtype = "<u2" if tokenizer.vocab <= 2**16 else "<u4"
        with (
            write_then_rename(options.out) as work,
            SplitWriter(work, "train", dtype, options.shard_tokens) as train,
            SplitWriter(work, "val", dtype, options.shard_tokens) as validation,
        ):
            parts = {"train": train, "val": validation}
            with doing("tokenizing"):
                rule = _write(documents(files, options.text_key), tokenizer, parts, share, _Lines(log))
            for part in parts.values():
                part.close()
            texts = 1 if rule == SINGLE_DOCUMENT else train.documents + validation.documents
            if not train.tokens:
                raise _nothing_to_train_on(found, validation.documents, share)
            meta = {
                "format": FORMAT,
                "version": VERSION,
                "tokenizer": {
                    "name": tokenizer.name,
                    "sha256": tokenizer.sha256,
                    "vocab": tokenizer.vocab,
                    "end_of_text": tokenizer.end_of_text,
                },
                "dtype": "uint16" if dtype == "<u2" else "uint32",
                "split": {"rule": rule, "share": share},
                "sources": summary_record(_summary(options.sources, found, texts)),
                "train": _described(train, tokenizer.vocab),
                "validation": _described(validation, tokenizer.vocab),
            }
            write_meta(work, meta)
            return meta
    except (OSError, ValueError) as error:  # ValueError: a NUL in a path
        raise DataError(
            "cannot read the sources", why=str(error), remedy="give text, JSON-lines, Parquet, or folders of them"
        ) from error


def _summary(sources: tuple[Path, ...], found: list[Listing], texts: int) -> ReadSummary:
    """What was read of all sources; of several, a file that was not read is named with its source."""
    size = sum(file.stat().st_size for listing in found for file in listing.files)
    skipped: list[SkippedFile] = []
    for source, listing in zip(sources, found, strict=True):
        above = f"{source.name}/" if len(sources) > 1 else ""
        skipped += [replace(one, path=above + one.path) for one in listing.skipped]
    return ReadSummary(sum(len(listing.files) for listing in found), texts, size, tuple(skipped))


def _nothing_to_train_on(found: list[Listing], held_out: int, share: float) -> DataError:
    """The refusal of sources without a document to train on, to be raised; it names what was not read."""
    why = f"{sum(len(one.files) for one in found)} files were read, and hold no document"
    if held_out:
        why = f"{held_out} documents were read, and {share:.2g} of them are held out"
    skipped = [file for one in found for file in one.skipped]
    return DataError(
        "no document is left to train on",
        why=why + "".join(f"; {line}" for line in skipped_lines(skipped)),
        remedy="give more text, or a smaller --val-share",
    )


def _refuse(options: PrepareOptions) -> None:
    if options.val_share is not None and options.val_tokens is not None:
        raise InputError(
            "--val-share and --val-tokens contradict each other",
            why="each says how much is held out",
            remedy="give one of them",
        )
    if options.val_share is not None and not 0 <= options.val_share < 1:
        raise InputError(f"--val-share: {options.val_share:g} is not a share", why="it is below 1", remedy="0.01 or 1%")
    if not 1 <= options.shard_tokens <= MAX_SHARD_TOKENS:
        raise InputError(
            f"--shard-tokens: {options.shard_tokens} does not fit a shard",
            why=f"its header holds a count of four bytes: {MAX_SHARD_TOKENS} at most",
            remedy=f"leave it out for {SHARD_TOKENS}",
        )
    for source in options.sources:
        if source.suffix == ".bin":
            raise DataError(
                f"{str(source)!r} holds tokens already",
                why="text is prepared; a .bin is trained on as it is",
                remedy="gptplan run --data takes it; leave -o out to have it described",
            )


def _refuse_twice(files: list[Path]) -> None:
    seen: set[str] = set()
    for file in files:
        if os.path.realpath(file) in seen:
            raise DataError(
                f"{str(file)!r} is among the sources twice",
                why="its text would be trained on twice",
                remedy="name it once",
            )
        seen.add(os.path.realpath(file))


def _share(options: PrepareOptions, files: list[Path], tokenizer: Tokenizer) -> float:
    """The fraction to hold out; for --val-tokens from the tokens per byte of the first MiB."""
    if options.val_tokens is None:
        return VAL_SHARE if options.val_share is None else options.val_share
    if not options.val_tokens:
        return 0.0
    read = tokens = 0
    for document in documents(files, options.text_key):
        head = document
        if len(document.content) > ESTIMATE_BYTES:  # one long text: its beginning stands for it
            content = _whole_characters(document.content[:ESTIMATE_BYTES])
            head = TextDocument(content, document.file, document.line, ESTIMATE_BYTES)
        tokens += len(tokenizer.encode([head])[0]) + 1
        read += head.source_bytes
        if read >= ESTIMATE_BYTES:
            break
    size = sum(source_bytes(file, options.text_key) for file in files)
    return min(MAX_VALIDATION_SHARE, options.val_tokens * read / max(1, tokens * size))


def _whole_characters(content: bytes) -> bytes:
    """The bytes without an incomplete UTF-8 character at the end."""
    end = len(content)
    while end and content[end - 1] & 0xC0 == 0x80:
        end -= 1
    return content[: end - 1] if end and content[end - 1] >= 0xC0 else content


class _Lines:
    """A line every `LOG_EVERY_SECONDS` with what was written until then."""

    def __init__(self, log: Log) -> None:
        self.log, self.last = log, time.monotonic()

    def show(self, parts: dict[str, SplitWriter]) -> None:
        """To be called whenever something was written."""
        if time.monotonic() - self.last >= LOG_EVERY_SECONDS:
            self.last = time.monotonic()
            size, tokens = sum(p.text_bytes for p in parts.values()), sum(p.tokens for p in parts.values())
            self.log(f"tokenized {format_bytes(size)} of text, {format_count(tokens)} tokens so far")


def _write(
    texts: Iterator[TextDocument], tokenizer: Tokenizer, parts: dict[str, SplitWriter], share: float, lines: _Lines
) -> str:
    """Write every document into its split; return the rule of the split."""
    first = list(_some(texts, 2))
    lone = len(first) == 1 and share > 0
    sides = _halves(first[0], share) if lone else ((_side(text, share), text) for text in chain(first, texts))
    waiting: list[tuple[str, TextDocument]] = []
    size = 0
    for side, text in sides:
        waiting.append((side, text))
        size += len(text.content)
        if size >= TOKENIZE_BYTES:
            _flush(waiting, tokenizer, parts)
            waiting, size = [], 0
            lines.show(parts)
    _flush(waiting, tokenizer, parts)
    return SINGLE_DOCUMENT if lone else SPLIT_RULE


def _some(texts: Iterator[TextDocument], most: int) -> Iterator[TextDocument]:
    for _, text in zip(range(most), texts, strict=False):
        yield text


def _side(text: TextDocument, share: float) -> str:
    place = int.from_bytes(hashlib.sha256(text.content).digest()[:8])
    return "val" if place < share * 2**64 else "train"


def _halves(text: TextDocument, share: float) -> Iterator[tuple[str, TextDocument]]:
    """A text in two parts: the last `share` begins at a line start; a single line is not split."""
    border = len(text.content) - round(len(text.content) * share)
    line = text.content.find(b"\n", max(0, border - 1)) + 1 or len(text.content)
    for side, content in (("train", text.content[:line]), ("val", text.content[line:])):
        if content:
            yield side, TextDocument(content, text.file, text.line, len(content))


def _flush(waiting: list[tuple[str, TextDocument]], tokenizer: Tokenizer, parts: dict[str, SplitWriter]) -> None:
    encoded = tokenizer.encode([text for _, text in waiting])
    for (side, text), ids in zip(waiting, encoded, strict=True):
        parts[side].add(ids, tokenizer.end_of_text, len(text.content))


def _described(part: SplitWriter, vocab: int) -> dict[str, Any]:
    """The entry of a split in meta.json; the fingerprint is that of the written tokens."""
    arrays: list[FileTokens] = []
    file_starts: FileStarts = []
    total = 0
    for shard in part.shards:
        path = part.directory / shard["name"]
        arrays.append(FileTokens(OpenFile(path), np.dtype(part.dtype), HEADER_BYTES, shard["tokens"]))
        file_starts.append(FileStart(total, path, HEADER_BYTES))
        total += shard["tokens"]
    return {
        "documents": part.documents,
        "tokens": part.tokens,
        "bytes": part.text_bytes,
        "bytes_per_token": part.text_bytes / part.tokens if part.tokens else None,
        "fingerprint": scan(Shards(arrays), file_starts, vocab) if arrays else None,
        "shards": part.shards,
    }
