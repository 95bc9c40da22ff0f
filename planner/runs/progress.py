"""The progress of a run: the numbers of its log with their predictions."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any, Literal

from planner.config.run import RunConfig
from planner.counts.run import steps_of
from planner.counts.schedule import schedule_rate
from planner.errors import PlanError
from planner.inputs.run_toml import load_config
from planner.interval import UNKNOWN, Interval, exactly
from planner.json_input import read_json
from planner.runs.comparison_file import load_comparison
from planner.runs.directory import COMPARISON, CONFIG, PLAN, Place, follow
from planner.runs.rows import EVENTS, LARGEST_QUANTITY, METRICS, JsonObject
from planner.units import LOSS_DIGITS, format_number

POINTS = 2048  # of a curve; when there are more, every second one is dropped
_RECENT_STEPS = 64  # steps of the median speed, as many as the trainer's own estimate of the time left has
LAST_EVENTS = 50
START = Place()

RunStage = Literal["nothing", "starting", "running", "stopping", "closing", "finished", "stopped", "failed", "gone"]
Unit = Literal["step", "token", "token/s", "s", "byte", "1", "nat/token", "share"]


@dataclass(frozen=True, slots=True)
class RunFigure:
    """One number of a run with its prediction; None is unknown."""

    label: str
    unit: Unit
    measured: float | int | None
    predicted: float | int | None = None
    interval: Interval[float] = UNKNOWN
    note: str = ""

    @property
    def ratio(self) -> float | None:
        """Measured / predicted."""
        return self.measured / self.predicted if self.measured is not None and self.predicted else None


class Series:
    """A curve with a limited number of points, evenly thinned; `at(step)` is the point at or before a step."""

    def __init__(self) -> None:
        self.steps: list[int] = []
        self.values: list[float] = []
        self._every = 1

    def add(self, step: int, value: object) -> None:
        """Add a point, if it is a number and due."""
        number = _as_number(value)
        if number is not None and (step % self._every == 0 or not self.steps):
            self.steps.append(step)
            self.values.append(float(number))
            if len(self.steps) > POINTS:
                self.steps, self.values = self.steps[::2], self.values[::2]
                self._every *= 2

    def at(self) -> Callable[[int], float]:
        """The curve as a function of the step, for planner.report.plot."""
        from bisect import bisect_right

        steps, values = tuple(self.steps), tuple(self.values)
        return lambda step: values[max(0, bisect_right(steps, step) - 1)]

    def __len__(self) -> int:
        return len(self.steps)


@dataclass(slots=True)
class Record:
    """The data of a run read so far; `read_on` reads new lines."""

    directory: Path
    metrics: Place = START
    log: Place = START
    last: JsonObject | None = None
    loss: Series = field(default_factory=Series)
    speed: Series = field(default_factory=Series)
    recent: deque[tuple[int, float]] = field(
        default_factory=lambda: deque(maxlen=_RECENT_STEPS)
    )  # steps and their seconds
    validation: tuple[float, int] | None = None
    best_validation: float | None = None
    events: deque[JsonObject] = field(default_factory=lambda: deque(maxlen=LAST_EVENTS))
    start: JsonObject | None = None
    plan: Mapping[str, Any] | None = None
    config: RunConfig | None = None
    peak: float | int | None = None
    skipped_lines: int = 0
    _skipped: dict[str, int] = field(default_factory=dict)
    _made: tuple[int, int] | None = None
    _compared: int | None = None

    def read_on(self) -> bool:
        """Read what was written since the last call; return whether more is left."""
        self._read_plan()
        self._read_comparison()
        rows = follow(self.directory / METRICS, self.metrics)
        if rows.anew:
            self.last, self.loss, self.speed, self.validation = None, Series(), Series(), None
            self.best_validation = None
            self.recent.clear()
        self.metrics = rows.place
        for row in rows.rows:
            self._take(row)
        happened = follow(self.directory / EVENTS, self.log)
        if happened.anew:
            self.events.clear()
            self.start = None
        self.log = happened.place
        for name, read in ((METRICS, rows), (EVENTS, happened)):
            self._skipped[name] = read.skipped + (0 if read.anew else self._skipped.get(name, 0))
        self.skipped_lines = sum(self._skipped.values())
        for event in happened.rows:
            self.events.append(event)
            if event.get("event") in ("start", "resume"):
                self.start = event
        return rows.more or happened.more

    def _take(self, row: JsonObject) -> None:
        step = row.get("step")
        if not isinstance(step, int):
            return
        self.last = row
        self.loss.add(step, row.get("loss"))
        self.speed.add(step, row.get("tokens_per_second"))
        seconds, validation = _number(row, "step_seconds"), _number(row, "validation_loss")
        if seconds:
            self.recent.append((step, seconds))
        if validation is not None:
            self.validation = (validation, step)
            self.best_validation = min(validation, self.best_validation or validation)

    def _read_plan(self) -> None:
        """Read plan.json and config.toml if they are new: a resume may have changed them."""
        try:
            made = ((self.directory / PLAN).stat().st_mtime_ns, (self.directory / CONFIG).stat().st_mtime_ns)
            if made != self._made:
                plan = read_json(self.directory / PLAN)
                self.plan = plan if isinstance(plan, dict) else None
                self.config, self._made = load_config(self.directory / CONFIG), made
        except (OSError, ValueError, PlanError, RecursionError):
            pass  # not there yet, or of another version: its numbers are unknown

    def _read_comparison(self) -> None:
        """The peak of the tensors' bytes, which is measured after training."""
        try:
            made = (self.directory / COMPARISON).stat().st_mtime_ns
            if made != self._compared:
                rows = load_comparison(self.directory).rows
                found = next((row.measured for row in rows if row.key == "peak_requested_bytes"), None)
                self.peak, self._compared = _as_number(found), made
        except (OSError, ValueError, PlanError):
            pass  # not over yet

    @property
    def latest(self) -> list[float]:
        """Seconds of the latest steps of the present process: a resumed run has its own speed."""
        first = _number(self.start, "step") or 0
        return [seconds for step, seconds in self.recent if step > first]


def _number(values: Mapping[str, Any] | None, *keys: str) -> float | int | None:
    """A number in nested objects, or None."""
    found: Any = values
    for key in keys:
        found = found.get(key) if isinstance(found, Mapping) else None
    return _as_number(found)


def _as_number(value: object) -> float | int | None:
    """A number that text and arithmetic can hold, or None."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return value if abs(value) <= LARGEST_QUANTITY else None  # of NaN that is false, too


def _interval(values: Mapping[str, Any] | None, section: str, key: str) -> Interval[float]:
    """A number of plan.json with its interval; without one where a file that was changed by hand has none."""
    low, value, high = (_number(values, section, f"{key}{end}") for end in ("_low", "", "_high"))
    whole = low is not None and value is not None and high is not None and low <= value <= high
    return Interval(low, value, high) if whole else exactly(value)


def run_figures(record: Record, resident: int | None = None) -> tuple[RunFigure, ...]:
    """The numbers of a run with their predictions.

    resident: resident bytes of its process, if it is running.
    """
    row, plan = record.last, record.plan
    step = int(row["step"]) if row else 0
    steps = _number(plan, "batch", "steps")
    speed = _speed(record)
    predicted = _interval(plan, "throughput", "tokens_per_second")
    validation = record.validation
    found = [
        RunFigure("step", "step", step, steps, note="of"),
        RunFigure("tokens", "token", _number(row, "tokens"), _number(plan, "tokens", "trained"), note="of"),
        RunFigure("loss", "nat/token", _number(row, "loss")),
        RunFigure("validation loss", "nat/token", validation and validation[0], note=_evaluated(record)),
        RunFigure("learning rate", "1", _number(row, "lr"), _rate(record.config, step)),
        RunFigure("gradient norm", "1", _number(row, "grad_norm"), note=_clipping(record.config)),
        RunFigure("tokens/s", "token/s", speed, predicted.value, predicted,
                  f"median of {len(record.latest)} steps"),
        RunFigure("MFU", "share", _used(record, speed), _number(plan, "throughput", "mfu")),
        *_memory(record, resident),
        _time_left(record, step, steps),
    ]  # fmt: skip
    if record.skipped_lines:
        found.append(RunFigure("skipped lines", "1", record.skipped_lines, note="of its logs, which are no rows"))
    empty = ("validation loss", "MFU", "peak of tensors")  # lines that many a run has no number for at all
    return tuple(f for f in found if f.label not in empty or f.measured is not None or f.predicted is not None)


def _speed(record: Record) -> float | None:
    tokens = _number(record.start, "tokens_per_step")
    latest = record.latest
    return tokens / median(latest) if tokens and latest else None


def _used(record: Record, speed: float | None) -> float | None:
    """MFU at the median speed: the start event has what it is computed from."""
    flops, peak = _number(record.start, "flops_per_step"), _number(record.start, "peak_flops")
    tokens = _number(record.start, "tokens_per_step")
    return flops * speed / (tokens * peak) if speed and flops and peak and tokens else None


def _rate(config: RunConfig | None, step: int) -> float | None:
    return schedule_rate(config.schedule, steps_of(config), step) if config is not None and step else None


def _clipping(config: RunConfig | None) -> str:
    limit = None if config is None else config.optimizer.clip_norm
    return "" if limit is None else f"clipped at {limit:g}"


def _evaluated(record: Record) -> str:
    if record.validation is None or record.best_validation is None:
        return ""
    lowest = format_number(record.best_validation, LOSS_DIGITS)
    best = "the best" if record.validation[0] <= record.best_validation else f"best {lowest}"
    return f"after step {record.validation[1]:,}, {best}"


def _memory(record: Record, resident: int | None) -> list[RunFigure]:
    """Of a GPU what PyTorch holds; of a processor what the process holds, and at the end its tensors' peak."""
    row, plan = record.last, record.plan
    if row is not None and _number(row, "allocated_bytes") is not None:
        kinds = (("allocated", "allocated_bytes", "peak_allocated_bytes"), ("reserved", "reserved_bytes",
                 "peak_reserved_bytes"))  # fmt: skip
        return [
            RunFigure(
                label, "byte", _number(row, key), _number(plan, "memory", peak), note="now; its peak is predicted"
            )
            for label, key, peak in kinds
        ]
    note = "" if record.peak is not None else "measured when the run is over"
    found = [
        RunFigure("peak of tensors", "byte", record.peak, _number(plan, "memory", "peak_requested_bytes"), note=note)
    ]
    if resident is not None:
        found.append(RunFigure("process memory", "byte", resident, note="resident, PyTorch's code and the data in it"))
    return found


def _time_left(record: Record, step: int, steps: float | None) -> RunFigure:
    seconds = _number(record.plan, "throughput", "step_seconds")
    left = None if seconds is None or steps is None else seconds * max(0, steps - step)
    return RunFigure("time left", "s", _number(record.last, "eta_seconds"), left, note="evaluations and saves left out")


def stage(record: Record, *, owned: bool, alive: bool | None, code: int | None, asked: bool) -> RunStage:
    """The stage of a run.

    owned: its lock is held. alive: whether the process that the planner started is running, None if it started none;
    code: its exit code. asked: whether it was asked to stop.
    """
    last = str(record.events[-1].get("event")) if record.events else ""
    closed = last in ("finished", "stopped", "diverged")
    working = owned or bool(alive)
    if working and closed and not owned:
        return "closing"  # out of the loop: it measures once more and compares
    if working:
        return "stopping" if asked else "running" if owned and record.start is not None else "starting"
    if code is not None and code < 0:
        return "gone"  # killed
    if code not in (None, 0, 130, 143):
        return "failed"
    if not record.events:
        return "nothing" if code is None else "stopped"
    if last == "finished":
        return "finished"
    message = record.events[-1].get("message")
    if last == "diverged" or (last == "stopped" and message):
        return "failed"
    return "stopped" if last == "stopped" or code is not None else "gone"
