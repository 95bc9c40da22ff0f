"""execution.json of a run directory: the options that a run was started with and that are not in its config."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, ClassVar

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from planner.errors import FileError
from planner.files import read_bytes
from planner.json_input import checked_by, parsed_json
from planner.runs.directory import EXECUTION

_Every = Annotated[int, Field(ge=1, le=10**15)] | None


class RecordedReading(BaseModel):
    """How the data is read: tokenizer, key of the text in JSON lines, token between texts."""

    model_config: ClassVar[ConfigDict] = ConfigDict(extra="ignore", frozen=True)

    tokenizer: str = "byte"
    text_key: str = "text"
    end_of_text: Annotated[int, Field(ge=0, le=2**32)] | None = None


class ExecutionRecord(BaseModel):
    """The options of a start. Files of older versions lack some keys, and those of newer ones may have more."""

    model_config: ClassVar[ConfigDict] = ConfigDict(extra="ignore", frozen=True)

    data: str | None
    device: str | None = None
    reading: RecordedReading = RecordedReading()
    deterministic: bool = False
    log_every: _Every = None
    statistics_every: _Every = None
    noise_scale: bool = False
    trackers: Annotated[tuple[str, ...], Field(max_length=10)] = ()
    eval_timeout: Annotated[float, Field(gt=0, le=1e9)] | None = None
    run_id: str | None = None
    has_eval_command: bool = False
    eval_command: str | None = None


def load_execution(directory: Path) -> ExecutionRecord:
    """The options that a run was started with. Raises FileError for a file that is missing or damaged."""
    path = directory / EXECUTION
    content = read_bytes(path)
    try:
        return checked_by(TypeAdapter(ExecutionRecord), parsed_json(content))
    except ValueError as error:
        raise FileError(
            f"{path} is damaged", why=str(error), remedy="delete it, and give --data and the other run options again"
        ) from None
