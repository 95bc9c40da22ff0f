"""A log as numbers: whose it is, and its speed, memory and loss after the first steps."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from planner.errors import FileError, InputError
from planner.files import ordinary_bytes
from planner.json_input import parsed_json
from planner.runs.logs.formats import LOG_FORMATS, LogFormat, LogLine, entry_of
from planner.runs.logs.lines import log_text_lines

MOST_STATE = 256 << 20  # bytes of a trainer_state.json
MOST_LINES = 1_000_000  # lines of steps that are kept
WARM = 10  # steps that compile, fill caches and are slow


@dataclass(frozen=True, slots=True)
class RunLog:
    """What a log says. Speeds are medians after the first `WARM` steps, or of all if there are no more.

    warm_lines: lines behind the medians. unread: lines with a mark of the format that no expression reads.
    """

    engine: str
    title: str
    first_step: int | None
    last_step: int | None
    steps: int | None
    lines: int
    warm_lines: int
    unread: int
    first_loss: float | None
    last_loss: float | None
    step_seconds: float | None
    micro_seconds: float | None
    tokens_per_second: float | None
    tokens_per_second_per_gpu: float | None
    sequences_per_step: int | None
    allocated_bytes: int | None
    reserved_bytes: int | None
    device_bytes: int | None
    run_step_seconds: float | None


def read_log(path: Path, engine: str | None = None) -> RunLog:
    """A log, or a trainer_state.json. engine: whose it is; None: found by its lines.

    Raises FileError for a file that cannot be read or has no steps; InputError for an engine whose logs are not read.
    """
    names = [known.name for known in LOG_FORMATS]
    if engine is not None and engine not in names:
        raise InputError(f"--from {engine}: its logs are not read", remedy=f"known: {', '.join(names)}")
    if path.suffix == ".json":
        return _of_state(path)
    formats = [known for known in LOG_FORMATS if engine in (None, known.name)]
    found: dict[str, list[LogLine]] = {known.name: [] for known in formats}
    unread: Counter[str] = Counter()
    for line in log_text_lines(path):
        for known in formats:
            if not any(mark in line for mark in known.marks):
                continue
            made = known.read(line)
            if made is None:
                unread[known.name] += 1
            elif len(found[known.name]) < MOST_LINES:
                found[known.name].append(made)
    best = max(formats, key=lambda known: sum(_is_step(line) for line in found[known.name]))
    lines = found[best.name]
    if not any(map(_is_step, lines)):
        raise FileError(
            f"{path} has no steps that are understood",
            why=f"no line is one of {', '.join(known.title for known in formats)}",
            remedy="give what the trainer printed, or the trainer_state.json of transformers",
        )
    return _summed(best, lines, unread[best.name])


def _is_step(line: LogLine) -> bool:
    return line.loss is not None or line.step_seconds is not None or line.run_step_seconds is not None


def _of_state(path: Path) -> RunLog:
    """trainer_state.json of transformers 4 and 5."""
    try:
        values = parsed_json(ordinary_bytes(path, MOST_STATE), allow_nonfinite=True)
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or str(error)
        raise FileError(f"{path} cannot be read", why=why, remedy="give a whole trainer_state.json") from None
    history = values.get("log_history") if isinstance(values, dict) else None
    entries = [entry for entry in history if isinstance(entry, dict)] if isinstance(history, list) else []
    lines = [made for made in map(entry_of, entries) if made is not None]
    if not lines:
        why = "it has no log_history with losses"
        raise FileError(f"{path} is no trainer_state.json", why=why, remedy="give that of a run that has logged")
    known = next(known for known in LOG_FORMATS if known.name == "hf-trainer")
    total = values.get("max_steps")
    steps = total if isinstance(total, int) and total > 0 else None
    return _summed(known, lines if steps is None else [*lines, LogLine(steps=steps)], 0)


def _summed(known: LogFormat, lines: list[LogLine], unread: int) -> RunLog:
    steps = [line for line in lines if _is_step(line) and line.run_step_seconds is None]
    numbered = [line.step for line in steps if line.step is not None]
    warm = [line for line in steps if line.step is None or line.step > WARM] or steps
    losses = [line.loss for line in steps if line.loss is not None]
    return RunLog(
        engine=known.name,
        title=known.title,
        first_step=min(numbered, default=None),
        last_step=max(numbered, default=None),
        steps=_last([line.steps for line in lines]),
        lines=len(steps),
        warm_lines=len(warm),
        unread=unread,
        first_loss=losses[0] if losses else None,
        last_loss=losses[-1] if losses else None,
        step_seconds=_median([line.step_seconds for line in warm]),
        micro_seconds=_median([line.micro_seconds for line in warm]),
        tokens_per_second=_median([line.tokens_per_second for line in warm]),
        tokens_per_second_per_gpu=_median([line.tokens_per_second_per_gpu for line in warm]),
        sequences_per_step=_last([line.sequences_per_step for line in lines]),
        allocated_bytes=_most([line.allocated_bytes for line in lines]),
        reserved_bytes=_most([line.reserved_bytes for line in lines]),
        device_bytes=_most([line.device_bytes for line in lines]),
        run_step_seconds=next((s for s in (line.run_step_seconds for line in reversed(lines)) if s is not None), None),
    )


def _median(values: list[float | None]) -> float | None:
    finite = [value for value in values if value is not None and math.isfinite(value) and value > 0]
    return median(finite) if finite else None


def _most(values: list[int | None]) -> int | None:
    return max((value for value in values if value is not None), default=None)


def _last(values: list[int | None]) -> int | None:
    return next((value for value in reversed(values) if value is not None), None)
