"""The sources of `open_data`: tokens with their files, the validation part, and the end-of-text token."""

from __future__ import annotations

import sysconfig
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from platform import python_version
from typing import Any

import numpy as np

from planner.errors import DataError
from reference_trainer.data.corpus.directory import TokenFiles, token_files
from reference_trainer.data.corpus.formats import Array, TokenFile, token_file
from reference_trainer.data.corpus.listing import ReadSummary, SkippedFile, text_files, walk
from reference_trainer.data.corpus.shards import FileStart, FileStarts, Shards, TokenArray, slice_tokens
from reference_trainer.data.corpus.texts import TextDocument, documents
from reference_trainer.data.corpus.tokenizers import END_OF_TEXT, Tokenizer, load_tokenizer

BUILT_IN_LIMIT = 16 * 2**20  # bytes: some 4 M words are enough to see a small model learn, and are read in 0.1 s
NOT_PROSE = {"site-packages", "dist-packages", "test", "tests", "__pycache__"}
HELD_OUT = 10  # where nothing is held out by name, the last 1/10 of the tokens is
UINT16_VALUES = 2**16


@dataclass(frozen=True, slots=True)
class ReadOptions:
    """How sources are read: `tokenizer` of text (see tokenizers.py), `text_key` of JSON-lines, and the end-of-text id,
    if it is not the tokenizer's own or the token files do not state it."""

    tokenizer: str = "byte"
    text_key: str = "text"
    end_of_text: int | None = None


@dataclass(frozen=True, slots=True)
class Source:
    """Tokens and the start of each file; end_of_text is None if it is unknown or absent.

    source_bytes: size of the original text, None if unknown. fingerprint: the one stored when they were prepared.
    documents: how many texts, None where unknown. summary: what was read and what was not; None of the built-in text.
    """

    tokens: TokenArray
    file_starts: FileStarts
    name: str
    end_of_text: int | None = None
    source_bytes: int | None = None
    validation: Source | None = None
    fingerprint: str | None = None
    documents: int | None = None
    summary: ReadSummary | None = None


def open_source(path: Path | None, vocab: int, reading: ReadOptions) -> Source:
    """The tokens at `path`, for None those of the built-in text; with `validation` if files are named for it.

    Raises DataError, and OSError if a file is unreadable.
    """
    if path is None:
        return _built_in(vocab)
    files = token_files(path)
    if files is not None:
        return _from_files(files, path.name, vocab, reading)
    found = text_files(path, reading.text_key)
    if reading.tokenizer == "byte" and reading.end_of_text is None:
        source = _bytes(documents(found.files, reading.text_key), path.name, vocab)
    else:
        tokenizer = load_tokenizer(reading.tokenizer, reading.end_of_text)
        refuse_small_vocab(tokenizer.vocab, tokenizer.name, vocab)
        source = _tokenized(documents(found.files, reading.text_key), path.name, tokenizer)
    return replace(source, summary=_summary(found.files, source.documents, found.skipped))


def _summary(files: Sequence[Path], texts: int | None, skipped: Sequence[SkippedFile]) -> ReadSummary:
    return ReadSummary(len(files), texts, sum(file.stat().st_size for file in files), tuple(skipped))


def without_validation(source: Source) -> Source:
    """`source` where nothing is evaluated: the files that are held out by name are not read, and are named."""
    if source.validation is None or source.summary is None:
        return source
    why = "it is held out, and the run evaluates nothing"
    held = [SkippedFile(start.file.name, start.file.stat().st_size, why) for start in source.validation.file_starts]
    skipped = (*source.summary.skipped, *held)
    return replace(source, validation=None, summary=replace(source.summary, skipped=skipped))


def split_off(source: Source) -> Source:
    """`source` with a validation part: the files named for it, else the last 1/10 of its tokens."""
    if source.validation is not None:
        return source
    total = len(source.tokens)
    border = total - total // HELD_OUT
    inside = max(number for number, file_start in enumerate(source.file_starts) if file_start.begin <= border)
    first = source.file_starts[inside]
    at = first._replace(begin=0, skipped=border - first.begin)
    rest = [file_start._replace(begin=file_start.begin - border) for file_start in source.file_starts[inside + 1 :]]
    kept = [file_start for file_start in source.file_starts if file_start.begin < border] or source.file_starts[:1]
    part = replace(source, source_bytes=None, fingerprint=None, documents=None)
    name = f"the last {total - border} tokens of {source.name}"
    validation = replace(part, tokens=slice_tokens(source.tokens, border, total), file_starts=[at, *rest], name=name)
    return replace(part, tokens=slice_tokens(source.tokens, 0, border), file_starts=kept, validation=validation)


def refuse_small_vocab(needed: int, name: str, vocab: int) -> None:
    """Raises DataError if a tokenizer has more ids than the model's embedding table has rows."""
    if needed > vocab:
        raise DataError(
            f"the tokenizer {name} has {needed} tokens, the model a vocabulary of {vocab}",
            why="an id past the model's table has no row",
            remedy=f"plan with --vocab {needed} or more, or prepare the data with the model's own tokenizer",
        )


def _from_files(files: TokenFiles, name: str, vocab: int, reading: ReadOptions) -> Source:
    end, meta = reading.end_of_text, files.meta
    if meta is not None:
        tokenizer = meta["tokenizer"]
        refuse_small_vocab(tokenizer["vocab"], tokenizer["name"], vocab)
        if end is not None and end != tokenizer["end_of_text"]:
            raise DataError(
                f"--eot {end} contradicts {name}",
                why=f"it was prepared with {tokenizer['end_of_text']} between its texts",
                remedy="leave --eot out",
            )
        end = tokenizer["end_of_text"]
    elif end is not None and not 0 <= end < vocab:
        raise DataError(f"--eot {end} is not a token", why=f"ids go from 0 to {vocab - 1}", remedy="give another id")
    kinds = {"train": files.train, "validation": files.validation}
    parts = [_part(part, name, vocab, meta, kind) for kind, part in kinds.items()]
    train, validation = (None if part is None else replace(part, end_of_text=end) for part in parts)
    assert train is not None, "a directory without training tokens is refused where it is listed"
    if validation is not None and validation.tokens.dtype != train.tokens.dtype:
        raise _mixed(validation.file_starts[0].file, validation.tokens.dtype, train.tokens.dtype)
    texts = None if meta is None else meta["train"]["documents"]
    return replace(train, validation=validation, summary=_summary(files.train, texts, files.skipped))


def _part(files: Sequence[Path], name: str, vocab: int, meta: dict[str, Any] | None, kind: str) -> Source | None:
    if not files:
        return None
    found = [token_file(file) for file in files]
    for file in found:
        _check(file, found[0], vocab, meta)
    file_starts: FileStarts = []
    total = 0
    for file in found:
        file_starts.append(FileStart(total, file.path, file.offset))
        total += file.count
    arrays = [file.tokens() for file in found]
    size = fingerprint = None
    if meta is not None:
        size, fingerprint = meta[kind]["bytes"], meta[kind]["fingerprint"]
        for file, shard in zip(found, meta[kind]["shards"], strict=True):
            if file.count != shard["tokens"]:
                raise DataError(
                    f"{str(file.path)!r} holds {file.count} tokens, meta.json says {shard['tokens']}",
                    why="the shard is another than the one that was prepared",
                    remedy="prepare the data again",
                )
    held_out = "" if kind == "train" else ", held out"
    tokens = arrays[0] if len(arrays) == 1 else Shards(arrays)
    return Source(tokens, file_starts, name + held_out, source_bytes=size, fingerprint=fingerprint)


def _check(file: TokenFile, first: TokenFile, vocab: int, meta: dict[str, Any] | None) -> None:
    if not file.count:
        raise DataError(
            f"{str(file.path)!r} is empty",
            why="it holds 0 tokens, too few for any sequence",
            remedy="take it out, or write it again",
        )
    if file.dtype != first.dtype:
        raise _mixed(file.path, np.dtype(file.dtype), np.dtype(first.dtype))
    if meta is not None and not file.has_header:
        raise DataError(
            f"{str(file.path)!r} has lost its header",
            why="gptplan data writes shards with llm.c's magic number in front",
            remedy="prepare the data again",
        )
    if meta is None and file.dtype == "<u2" and vocab > UINT16_VALUES:
        raise DataError(
            f"{str(file.path)!r} has tokens of two bytes, the model a vocabulary of {vocab}",
            why=f"two bytes tell {UINT16_VALUES} tokens apart: larger ids would have been cut when it was written",
            remedy="prepare the text with gptplan data, which takes four bytes where they are needed",
        )


def _mixed(file: Path, dtype: np.dtype[Any], first: np.dtype[Any]) -> DataError:
    return DataError(
        f"{str(file)!r} has tokens of {dtype.itemsize} bytes, others {first.itemsize}",
        why="the files of one data set have one type",
        remedy="keep data sets in directories of their own",
    )


def _built_in(vocab: int) -> Source:
    root = Path(sysconfig.get_path("stdlib"))
    files = [file for file, _, why in walk(root, skip=NOT_PROSE) if not why and file.suffix == ".py"]
    if not files:
        raise DataError(
            "this Python has no standard-library sources to train on",
            why=f"no .py file lies below {root}",
            remedy="give data of your own with --data",
        )
    return _bytes(documents(files), f"sources of Python {python_version()}'s standard library", vocab, BUILT_IN_LIMIT)


def _bytes(texts: Iterable[TextDocument], name: str, vocab: int, limit: int | None = None) -> Source:
    """The texts' bytes one after the other, each followed by end of text, at most `limit` tokens.

    A vocabulary of 256 has no room for end of text: a newline separates texts, and is no reliable end.
    """
    room = vocab > END_OF_TEXT
    end: Array = np.array([END_OF_TEXT], np.uint16) if room else np.array([ord("\n")], np.uint8)
    parts: list[Array] = []
    file_starts: FileStarts = []
    total = 0
    for text in texts:
        if not file_starts or file_starts[-1].file != text.file:
            file_starts.append(FileStart(total, text.file))
        part = np.frombuffer(text.content, np.uint8)
        parts += [part.astype(np.uint16) if room else part, end]
        total += len(part) + 1
        if limit is not None and total >= limit:
            break
    joined: Array = np.empty(total, end.dtype)
    if parts:
        np.concatenate(parts, out=joined)
    ends = len(parts) // 2
    whole = limit is None or total <= limit
    size = total - ends if whole else None
    return Source(joined[:limit], file_starts, name, END_OF_TEXT if room else None, size, documents=ends)


def _tokenized(texts: Iterable[TextDocument], name: str, tokenizer: Tokenizer) -> Source:
    """The texts' ids in memory, each text followed by the end of text."""
    dtype = np.uint16 if tokenizer.vocab <= UINT16_VALUES else np.uint32
    end = np.array([tokenizer.end_of_text], dtype)
    parts: list[Any] = []
    file_starts: FileStarts = []
    total = size = 0
    for text in texts:
        if not file_starts or file_starts[-1].file != text.file:
            file_starts.append(FileStart(total, text.file))
        (ids,) = tokenizer.encode([text])
        parts += [ids.astype(dtype), end]
        total, size = total + len(ids) + 1, size + len(text.content)
    joined: Array = np.concatenate(parts or [end[:0]])
    return Source(joined, file_starts, name, tokenizer.end_of_text, size, documents=len(parts) // 2)
