"""Text to tokens and back, for a run's tokens: bytes, or the tokenizer that its data was made with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any

from planner.config.run import RunConfig
from planner.errors import DataError, PlanError
from planner.paths import exists
from planner.runs.execution_file import load_execution
from reference_trainer.data.corpus.directory import token_files
from reference_trainer.data.corpus.meta_file import META, load_meta
from reference_trainer.data.corpus.tokenizers import BYTE_VALUES, END_OF_TEXT, load_tokenizer, package_errors

NEWLINE = ord("\n")  # stands between texts where the vocabulary has no room for an end of text


@dataclass(frozen=True, slots=True)
class Codec:
    """Text to tokens and back. end: the token between texts; stop: the token that ends a sample, or None."""

    name: str
    encode: Callable[[str], list[int]]
    decode: Callable[[list[int]], str]
    end: int
    stop: int | None


def decoder_for(config: RunConfig, run_dir: Path, tokenizer: str | None = None) -> Codec | None:
    """The codec of the run's tokens; None if only their ids can be shown.

    tokenizer: as given to `gptplan data`; its hash must be the one stored in the prepared data. Raises DataError.
    """
    known, data = recorded_data(run_dir)
    made_by = tokenizer_in(data)
    if tokenizer is not None:
        return _codec_named(tokenizer, made_by)
    if made_by:
        return _bytes_codec(made_by.get("end_of_text")) if made_by.get("name") == "byte" else None
    return codec_of(config.model.vocab, known and is_text(data))


def codec_of(vocab: int, on_text: bool) -> Codec | None:
    """The byte codec if the data is text or the vocabulary has only bytes; else None."""
    if vocab > END_OF_TEXT + 1 and not on_text:
        return None
    return _bytes_codec(END_OF_TEXT if vocab > END_OF_TEXT else None)


def _bytes_codec(end_of_text: int | None) -> Codec:
    """end_of_text: None if the vocabulary has no room for it; then a newline separates texts."""
    end = NEWLINE if end_of_text is None else end_of_text
    return Codec("bytes", lambda text: list(text.encode()), _bytes_as_text, end, end_of_text)


def _codec_named(name: str, made_by: dict[str, Any]) -> Codec:
    found: Any = load_tokenizer(name, made_by.get("end_of_text"))
    if made_by and made_by.get("sha256") not in (None, found.sha256):
        raise DataError(
            f"--tokenizer {name} is not the one that made the data",
            why=f"its sha256 is {str(found.sha256)[:12]}…, the data was made with {made_by['sha256'][:12]}…",
            remedy="give the same tokenizer.json that gptplan data was given",
        )
    if name == "byte":
        return _bytes_codec(found.end_of_text)

    def encode(text: str) -> list[int]:
        with package_errors(f"{found.name} cannot read this text"):
            if hasattr(found.inner, "encode_ordinary"):  # tiktoken's
                return list(found.inner.encode_ordinary(text))
            return list(found.inner.encode(text, add_special_tokens=False).ids)

    return Codec(found.name, encode, partial(decoded, found.inner), found.end_of_text, found.end_of_text)


def decoded(inner: Any, tokens: list[int]) -> str:
    """The text of the tokens. One that the tokenizer lacks, such as a padded row's, is the replacement character."""

    def text(part: list[int]) -> str:
        with package_errors("the tokens are not this tokenizer's"):
            return str(inner.decode(part))

    def is_known(token: int) -> bool:
        try:
            text([token])
        except DataError:
            return False
        return True

    try:
        return text(tokens)
    except DataError:
        runs = groupby(tokens, key=is_known)
        return "".join(text(list(run)) if known else "\ufffd" * len(list(run)) for known, run in runs)


def recorded_data(run_dir: Path) -> tuple[bool, Path | None]:
    """Whether the run recorded its data, and the path; None is the built-in text."""
    try:
        data = load_execution(run_dir).data
        return True, None if data is None else Path(data)
    except PlanError:
        return False, None


def tokenizer_in(data: Path | None) -> dict[str, Any]:
    """The tokenizer of prepared data: name, sha256, end_of_text; empty for other data."""
    try:
        return {} if data is None or not exists(data / META) else dict(load_meta(data)["tokenizer"])
    except PlanError:
        return {}


def is_text(data: Path | None) -> bool:
    """Whether the data is text: the built-in one, or a path without token files."""
    try:
        return data is None or token_files(data) is None
    except (DataError, OSError):
        return False


def _bytes_as_text(tokens: list[int]) -> str:
    """Decode as UTF-8; invalid bytes become the replacement character."""
    # 0xFF is in no character of UTF-8: a token that is no byte can join none
    return bytes(t if t < BYTE_VALUES else 0xFF for t in tokens).decode("utf-8", errors="replace")
