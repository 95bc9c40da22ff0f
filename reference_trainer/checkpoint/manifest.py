"""manifest.json of a checkpoint: its files with their sizes and hashes, written last and read as input."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, ClassVar

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from planner.files import ordinary_bytes
from planner.json_input import checked_by, parsed_json

# 2: state.json has progress, machine and the settings of all sections; extra.safetensors may exist
MANIFEST_SCHEMA = 2
SHARDED_SCHEMA = 3  # the same, with tensors in shards: model-00001-of-00004.safetensors
READABLE_SCHEMAS = (1, 2, 3)
MANIFEST = "manifest.json"


class StoredFile(BaseModel):
    """Size and SHA-256 of a file when it was written."""

    model_config: ClassVar[ConfigDict] = ConfigDict(extra="ignore", frozen=True)

    bytes: Annotated[int, Field(ge=0, le=2**63)]
    sha256: str


class Manifest(BaseModel):
    """What a manifest states. format: the version of the checkpoint's format; it may be one that is not readable."""

    model_config: ClassVar[ConfigDict] = ConfigDict(extra="ignore", frozen=True)

    format: Annotated[int, Field(alias="schema")]
    step: Annotated[int, Field(ge=0, le=10**15)]
    files: Annotated[dict[str, StoredFile], Field(max_length=100_000)]


def load_manifest(folder: Path) -> Manifest:
    """The manifest in a checkpoint's folder. Raises OSError, or ValueError for one that is damaged."""
    return checked_by(TypeAdapter(Manifest), parsed_json(ordinary_bytes(folder / MANIFEST)))
