"""Text to tokens and back, as the data of a run was made: bytes, or the tokenizer that its directory names."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from planner.config import RunConfig
from planner.errors import DataError
from reference_trainer.corpus.texts import Document
from reference_trainer.corpus.tokenizers import BYTE_VALUES, END_OF_TEXT, TIKTOKEN, Bytes, tokenizer_of

NEWLINE = 10


@dataclass(frozen=True, slots=True)
class Codec:
    """end: the token between texts."""

    name: str
    encode: Callable[[str], list[int]]
    decode: Callable[[list[int]], str]
    end: int


def decoder_for(config: RunConfig, run_dir: Path, tokenizer: str | None = None) -> Codec | None:
    """The codec of the run's tokens, or None: only their ids can be shown.

    tokenizer: `byte`, FILE or `tiktoken:NAME`, where somebody names it. Raises DataError for one that cannot be used,
    or is not that which made the data.
    """
    data = _data_of(run_dir)
    made_by = _tokenizer_of_directory(data)
    if (
        tokenizer is None
        and made_by is not None
        and (made_by["name"] == "byte" or made_by["name"].startswith(TIKTOKEN))
    ):
        tokenizer = made_by["name"]
    if tokenizer is not None:
        return _named(tokenizer, made_by)
    return codec_of(config.model.vocab, data != UNKNOWN and is_text(data))


def _named(name: str, made_by: dict[str, Any] | None) -> Codec:
    found = tokenizer_of(name, None if made_by is None else made_by["end_of_text"])
    if made_by is not None and made_by["sha256"] not in (None, found.sha256):
        raise DataError(
            f"{name} is not the tokenizer that made the run's data",
            why=f"its sha256 is {str(found.sha256)[:16]}…, that of {made_by['name']} was {made_by['sha256'][:16]}…",
            remedy=f"give the {made_by['name']} that the data was prepared with",
        )
    if isinstance(found, Bytes):
        return Codec("bytes", lambda text: list(text.encode()), bytes_as_text, found.end_of_text)
    return Codec(
        found.name,
        lambda text: [int(i) for i in found.encode([Document(text.encode(), Path("--prompt"), None, len(text))])[0]],
        found.inner.decode,  # type: ignore[attr-defined]
        found.end_of_text,
    )


def codec_of(vocab: int, on_text: bool) -> Codec | None:
    """Bytes where the data is text, which is read byte by byte, or the vocabulary has no room for more; else None."""
    if vocab > END_OF_TEXT + 1 and not on_text:
        return None
    return Codec(
        "bytes", lambda text: list(text.encode()), bytes_as_text, END_OF_TEXT if vocab > END_OF_TEXT else NEWLINE
    )


UNKNOWN = Path("?")


def _data_of(run_dir: Path) -> Path | None:
    """The path that the run trains on; None: the built-in text; UNKNOWN: nobody says."""
    try:
        data = json.loads((run_dir / "execution.json").read_text(encoding="utf-8"))["data"]
        return None if data is None else Path(data)
    except (OSError, ValueError, KeyError, TypeError):
        return UNKNOWN


def _tokenizer_of_directory(data: Path | None) -> dict[str, Any] | None:
    """What meta.json of a prepared directory says of its tokenizer."""
    if data is None:
        return None
    try:
        found = json.loads((data / "meta.json").read_text(encoding="utf-8"))["tokenizer"]
        return {key: found[key] for key in ("name", "sha256", "end_of_text")}
    except (OSError, ValueError, KeyError, TypeError):
        return None


def is_text(data: Path | None) -> bool:
    """Whether the data is text: the built-in one, or a path that holds no tokens."""
    return data is None or (data.suffix != ".bin" and not (data / "meta.json").exists())


def bytes_as_text(tokens: list[int]) -> str:
    """UTF-8; what is no byte, or no character, becomes the replacement character."""
    # 0xFF is in no character of UTF-8: a token that is no byte can join none
    return bytes(t if t < BYTE_VALUES else 0xFF for t in tokens).decode("utf-8", errors="replace")
