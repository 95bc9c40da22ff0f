"""The rows of metrics.jsonl and events.jsonl: what a line must be, and how lines are read that others may have written.

A line that is no row, cut by a crash or changed by hand, is skipped and counted; the others are read.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field

from planner.files import open_ordinary
from planner.json_input import parsed_json

METRICS, EVENTS = "metrics.jsonl", "events.jsonl"
LONGEST_LINE = 4 << 20  # bytes: a row has a few hundred
LARGEST_QUANTITY = 1e60  # of a number that is added up or divided by: no quantity of a run comes near it

JsonObject = dict[str, Any]
_Step = Annotated[int, Field(ge=0, le=10**15)]
_Quantity = Annotated[float, Field(ge=-LARGEST_QUANTITY, le=LARGEST_QUANTITY)] | None
_Positive = Annotated[float, Field(ge=0, le=LARGEST_QUANTITY)] | None
_Count = Annotated[int, Field(ge=0, le=10**30)] | None


class _Line(BaseModel):
    """What every row has; what is not named here may be anything that JSON can hold."""

    model_config: ClassVar[ConfigDict] = ConfigDict(extra="allow", strict=True)

    step: _Step


class MetricsLine(_Line):
    """A row of metrics.jsonl, one optimizer step: the numbers that are read back; seconds, tokens, nats per token."""

    tokens: _Count = None
    loss: _Quantity = None
    validation_loss: _Quantity = None
    lr: _Quantity = None
    grad_norm: _Quantity = None
    clipped: bool | None = None
    updated: bool | None = None
    step_seconds: _Positive = None
    data_seconds: _Positive = None
    window_seconds: _Positive = None
    window_idle_seconds: _Positive = None
    tokens_per_second: _Positive = None
    mfu: _Positive = None
    joules_per_token: _Positive = None
    noise_scale_tokens: _Quantity = None
    noise_gradient_sq: _Quantity = None
    noise_trace: _Quantity = None
    alloc_retries: _Count = None


class EventLine(_Line):
    """A row of events.jsonl: its kind, the step, and the numbers that are read back."""

    event: str
    time: str = ""
    message: str = ""
    loss: _Quantity | str = None  # of a skipped update it is text, such as "nan"
    seconds: _Positive = None
    stalled_seconds: _Positive = None
    count: _Count = None
    tokens_per_step: _Count = None
    flops_per_step: _Count = None
    hardware_flops_per_step: _Count = None
    peak_flops: _Positive = None


_SCHEMAS: dict[str, type[_Line]] = {METRICS: MetricsLine, EVENTS: EventLine}


class Rows:
    """Reads the lines of one file, called by its name; `skipped` counts those that are no row."""

    def __init__(self, name: str) -> None:
        self.skipped = 0
        self._schema = _SCHEMAS[name]

    def of(self, lines: Iterable[str | bytes]) -> Iterator[JsonObject]:
        """The rows of lines, in order. Blank lines are none, and are not counted."""
        for line in lines:
            row = self.row(line)
            if row is not None:
                yield row
            elif line.strip():
                self.skipped += 1

    def row(self, line: str | bytes) -> JsonObject | None:
        """The row in a line, or None."""
        try:
            if not line.strip() or len(line) > LONGEST_LINE:
                return None
            read = parsed_json(line)
            self._schema.model_validate(read)
        except ValueError:  # pydantic's own is one
            return None
        found: JsonObject = read
        return found

    def read(self, path: Path) -> Iterator[JsonObject]:
        """The rows of a whole file, in order. Raises OSError."""
        with open_ordinary(path) as file:
            while line := file.readline(LONGEST_LINE + 1):
                if len(line) <= LONGEST_LINE:
                    yield from self.of([line])
                    continue
                self.skipped += 1
                while line and not line.endswith(b"\n"):  # the rest of it, in pieces
                    line = file.readline(LONGEST_LINE)
