"""meta.json of a prepared directory: what `gptplan data` wrote, read back as input."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from planner.errors import DataError
from planner.files import ordinary_bytes
from planner.json_input import checked_by, parsed_json

META = "meta.json"
FORMAT = "gptplan-data"
VERSION = 1
MOST_META_BYTES = 32 << 20  # a hundred bytes for each shard, and a thousand names of files that were not read

_Count = Annotated[int, Field(ge=0, le=10**18)]
_FileName = Annotated[str, Field(pattern=r"^[^/\x00]{1,255}\z")]


class _Part(BaseModel):
    model_config: ClassVar[ConfigDict] = ConfigDict(extra="ignore")


class _Shard(_Part):
    name: _FileName
    tokens: _Count
    largest: _Count = 0
    sha256: str


class _Split(_Part):
    documents: _Count | None
    tokens: _Count
    bytes: _Count
    bytes_per_token: Annotated[float, Field(ge=0, le=1e18)] | None
    fingerprint: str | None
    shards: Annotated[tuple[_Shard, ...], Field(max_length=100_000)]


class _Tokenizer(_Part):
    name: str
    vocab: Annotated[int, Field(ge=1, le=2**32)]
    end_of_text: Annotated[int, Field(ge=0, le=2**32)]
    sha256: str | None = None


class _Rule(_Part):
    rule: str
    share: Annotated[float, Field(ge=0, le=1)]


class _Skipped(BaseModel):
    model_config: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    path: str
    bytes: _Count
    why: str


class _Sources(_Part):
    files: _Count
    documents: _Count | None
    bytes: _Count
    skipped_files: _Count
    skipped_bytes: _Count = 0
    skipped: tuple[_Skipped, ...]


class _Meta(_Part):
    format: Literal["gptplan-data"]
    version: Literal[1]
    tokenizer: _Tokenizer
    split: _Rule
    sources: _Sources | None = None  # not recorded by older versions
    train: _Split
    validation: _Split


def load_meta(directory: Path) -> dict[str, Any]:
    """The meta.json of a prepared directory, every key of it checked. Raises DataError for one that cannot be used."""
    path = directory / META
    try:
        read = parsed_json(ordinary_bytes(path, MOST_META_BYTES))
        return checked_by(TypeAdapter(_Meta), read).model_dump(mode="json")
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or str(error)
        raise unusable_meta(directory, why) from None


def unusable_meta(directory: Path, why: str) -> DataError:
    """The refusal of a meta.json."""
    return DataError(
        f"{str(directory / META)!r} cannot be used", why=why, remedy="prepare the data again with gptplan data"
    )
