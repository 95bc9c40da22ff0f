"""post-mortem.md: a summary of a run from its logs, problems first. Needs only the files, not PyTorch."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median, quantiles
from typing import Any

from planner.activity import doing
from planner.errors import FileError
from planner.files import write_atomically
from planner.paths import exists
from planner.runs.comparison import ComparisonRow
from planner.runs.comparison_file import load_comparison
from planner.runs.directory import COMPARISON, POST_MORTEM
from planner.runs.rows import EVENTS, METRICS, Rows
from planner.units import format_bytes, format_count, format_duration, format_fraction, format_number, told_apart
from reference_trainer.metrics.metrics_file import read_rows

_COLUMNS = (
    "loss", "clipped", "tokens_per_second", "mfu", "joules_per_token", "noise_scale_tokens", "window_seconds",
    "data_seconds", "window_idle_seconds", "alloc_retries",
)  # fmt: skip
LAST = 20  # the final loss is the median of so many rows
# fractions above which something is reported; our guesses, not published limits
CLIPPED, SKIPPED, WAITING, PAUSED, OVERFIT, UNSTEADY = 0.5, 0.01, 0.05, 0.10, 0.02, 0.5
PEAKS = ("peak_requested_bytes", "peak_allocated_bytes", "peak_reserved_bytes", "device_used_bytes")

Object = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Summary:
    """The numbers of a run. Losses in nats per token, times in seconds; None: not in the logs.

    `calls`: starts and resumes. `clipped_share`: fraction of steps that were clipped. `training_seconds`: of all log
    windows, without evaluations, saves and eval commands. `tokens_per_second`: 10th, 50th and 90th percentile of steps.
    `skipped_lines`: lines of the logs that are no rows.
    """

    run: str
    ended: str
    calls: int
    steps: int
    tokens: int
    first_loss: float | None
    last_loss: float | None
    best_validation: tuple[int, float] | None
    last_validation: float | None
    spikes: tuple[int, ...]
    skipped: tuple[int, ...]
    rollbacks: tuple[int, ...]
    slow_steps: tuple[int, ...]
    clipped_share: float | None
    training_seconds: float
    data_seconds: float
    idle_seconds: float
    evaluation_seconds: float
    saving_seconds: float
    eval_command_seconds: float
    failed_saves: int
    tokens_per_second: tuple[float, float, float] | None
    mfu: float | None
    alloc_retries: int | None
    joules_per_token: float | None
    noise_scale_tokens: float | None
    tokens_per_step: int | None
    comparison: tuple[ComparisonRow, ...]
    skipped_lines: int = 0

    @property
    def outside_seconds(self) -> float:
        """Time for evaluations, saves and eval commands."""
        return self.evaluation_seconds + self.saving_seconds + self.eval_command_seconds


@doing("reading the logs of the run")
def summary_of(directory: Path) -> Summary:
    """The summary of a run from its metrics.jsonl, events.jsonl and comparison.json.

    Raises FileError if there are no metrics.
    """
    metrics, happened = Rows(METRICS), Rows(EVENTS)
    rows = _Columns(read_rows(directory / METRICS, metrics))
    if rows.last is None:
        raise FileError(
            f"{directory} has no metrics of a step",
            why="there is no metrics.jsonl, or it has no complete line",
            remedy="give the directory that gptplan run --out wrote",
        )
    events = list(read_rows(directory / EVENTS, happened))
    compared = load_comparison(directory).rows if exists(directory / COMPARISON) else ()
    validations = [(int(e["step"]), float(e["loss"])) for e in _of(events, "evaluation") if _is_number(e.get("loss"))]
    losses, clipped = rows.numbers("loss"), rows.numbers("clipped")
    rates, mfus, joules = (rows.numbers(key) for key in ("tokens_per_second", "mfu", "joules_per_token"))
    begun = _of(events, "start", "resume")
    last_noise = rows.numbers("noise_scale_tokens")
    retries = [e["count"] for e in _of(events, "allocator retries") if e.get("count") is not None]
    return Summary(
        run=directory.absolute().name,
        ended=_ended(events),
        calls=len(begun),
        steps=int(rows.last["step"]),
        tokens=int(rows.last.get("tokens") or 0),
        first_loss=losses[0] if losses else None,
        last_loss=median(losses[-LAST:]) if losses else None,
        best_validation=min(validations, key=lambda found: found[1]) if validations else None,
        last_validation=validations[-1][1] if validations else None,
        spikes=_steps(_of(events, "spike")),
        skipped=tuple(rows.skipped),
        rollbacks=_steps(_of(events, "rollback")),
        slow_steps=_steps(_of(events, "slow step")),
        clipped_share=sum(clipped) / len(clipped) if clipped else None,
        training_seconds=sum(rows.numbers("window_seconds")),
        data_seconds=sum(rows.numbers("data_seconds")),
        idle_seconds=sum(rows.numbers("window_idle_seconds")),
        evaluation_seconds=_seconds(events, "evaluation"),
        saving_seconds=sum(_stalled(event) for event in _of(events, "checkpoint")),
        eval_command_seconds=_seconds(events, "eval command", "eval command failed", "eval command stopped"),
        failed_saves=len(_of(events, "checkpoint failed")),
        tokens_per_second=_tenths(rates),
        mfu=median(mfus) if mfus else None,
        alloc_retries=max(retries) if retries else (0 if rows.numbers("alloc_retries") else None),
        joules_per_token=median(joules) if joules else None,
        noise_scale_tokens=last_noise[-1] if last_noise else None,
        tokens_per_step=next((e["tokens_per_step"] for e in begun if e.get("tokens_per_step") is not None), None),
        comparison=compared,
        skipped_lines=metrics.skipped + happened.skipped,
    )


def _of(events: Iterable[Object], *kinds: str) -> list[Object]:
    return [event for event in events if event.get("event") in kinds]


def _steps(events: Iterable[Object]) -> tuple[int, ...]:
    return tuple(int(event["step"]) for event in events)


def _seconds(events: Iterable[Object], *kinds: str) -> float:
    return sum(float(event.get("seconds") or 0.0) for event in _of(events, *kinds))


class _Columns:
    """The numbers of metrics.jsonl that are summed up, 8 bytes each: a million rows as objects would take 3 GB."""

    def __init__(self, rows: Iterable[Object]) -> None:
        self.last: Object | None = None
        self.skipped: list[int] = []  # steps whose update was
        self._columns = {key: array("d") for key in _COLUMNS}
        for row in rows:
            self.last = row
            if row.get("updated") is False:
                self.skipped.append(int(row["step"]))
            for key, column in self._columns.items():
                if row.get(key) is not None:
                    column.append(row[key])

    def numbers(self, key: str) -> array[float]:
        """Those of one key that are known, in order."""
        return self._columns[key]


def _stalled(save: Object) -> float:
    """Seconds that training waited for a save; older logs have only those of the save itself."""
    stalled = save.get("stalled_seconds")
    return float(save.get("seconds") or 0.0) if stalled is None else float(stalled)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _tenths(values: Sequence[float]) -> tuple[float, float, float] | None:
    if not values:
        return None
    cuts = quantiles(values, n=10, method="inclusive") if len(values) > 1 else [values[0]] * 9
    return cuts[0], median(values), cuts[8]


def _ended(events: Sequence[Object]) -> str:
    for event in reversed(events):
        if event.get("event") in ("finished", "diverged", "stopped"):
            message = event.get("message", "")
            return f"{event['event']}{': ' if message else ''}{message}"
        if event.get("event") in ("start", "resume"):
            break
    return "unknown: the process died without an error message, or is still running"


# --- problems --------------------------------------------------------------------------------------------------------


def problems_of(s: Summary) -> tuple[str, ...]:
    """The problems of a run, the worst first; empty if there are none."""
    problems = [*_of_the_loss(s), *_of_the_memory(s), *_of_the_time(s)]
    if s.skipped_lines:
        problems.append(
            f"{s.skipped_lines} lines of {METRICS} and {EVENTS} are no rows: cut by a crash, or changed since."
        )
    if s.ended.startswith(("diverged", "unknown")):
        problems.insert(0, f"How the run ended: {s.ended}.")
    return tuple(problems)


def _of_the_loss(s: Summary) -> Iterable[str]:
    if s.first_loss is not None and s.last_loss is not None and s.last_loss >= s.first_loss:
        yield "The loss did not fall: check the learning rate, the data, and whether the first loss is near ln(vocab)."
    if s.rollbacks:
        yield f"{len(s.rollbacks)} rollbacks: check the data near the spikes, steps {_listed(s.spikes)}, and the lr."
    elif s.spikes:
        yield f"{len(s.spikes)} loss spikes, steps {_listed(s.spikes)}: check their data and the peak lr."
    if len(s.skipped) > SKIPPED * s.steps:
        listed = _listed(s.skipped)
        yield f"{len(s.skipped)} updates were skipped, steps {listed}: a spike, or loss or gradient was not finite."
    if s.clipped_share is not None and s.clipped_share > CLIPPED:
        yield (
            f"{format_fraction(s.clipped_share)} of the steps were clipped: the clip norm sets the step size, not "
            "the learning rate; a higher clip norm or a longer warm-up may train faster."
        )
    if s.best_validation is not None and s.last_validation is not None:
        step, best = s.best_validation
        if s.last_validation > best * (1 + OVERFIT):
            lowest, last = told_apart(format_number, best, s.last_validation)
            yield (
                f"The validation loss rose from {lowest} (step {step}) to {last}: over-fitting, or a learning rate "
                f"that is too high; the best model is at step {step}."
            )
    if s.noise_scale_tokens is not None and s.tokens_per_step is not None and s.tokens_per_step > s.noise_scale_tokens:
        yield (
            f"A batch of {format_count(s.tokens_per_step)} tokens is above the gradient-noise scale of "
            f"{format_count(round(s.noise_scale_tokens))} at the end: smaller batches would learn more per token."
        )


def _of_the_memory(s: Summary) -> Iterable[str]:
    if s.alloc_retries:
        yield f"The allocator ran out of memory and retried {s.alloc_retries} times: plan a smaller micro-batch."
    for row in s.comparison:
        if row.key in PEAKS and row.verdict == "outside":
            yield f"{row.key} was {_bytes(row.measured)}, predicted {_bytes(row.predicted)}: see report.md."


def _of_the_time(s: Summary) -> Iterable[str]:
    if s.failed_saves:
        yield f"{s.failed_saves} checkpoints could not be written: check the disk."
    if s.training_seconds and s.data_seconds > WAITING * s.training_seconds:
        yield f"{format_fraction(s.data_seconds / s.training_seconds)} of the training time was spent waiting for data."
    total = s.training_seconds + s.outside_seconds
    if total and s.outside_seconds > PAUSED * total:
        yield (
            f"{format_fraction(s.outside_seconds / total)} of the time was spent on evaluations, checkpoints and "
            "eval commands: run them less often, or write checkpoints with --async-save."
        )
    if s.slow_steps:
        yield f"Slow steps: {_listed(s.slow_steps)}: the process was stopped, or something else used the machine."
    if s.tokens_per_second is not None and s.tokens_per_second[0] < UNSTEADY * s.tokens_per_second[1]:
        yield "A tenth of the steps reach less than half of the usual speed: check data, other processes and heat."
    for row in s.comparison:
        if row.key in ("step_seconds", "tokens_per_second") and row.verdict == "outside":
            yield f"{row.key} was {_plain(row.measured)}, predicted {_plain(row.predicted)}."


def _listed(steps: tuple[int, ...], most: int = 8) -> str:
    shown = ", ".join(map(str, steps[:most]))
    return f"{shown} … ({len(steps)} in all)" if len(steps) > most else shown


# --- as text ----------------------------------------------------------------------------------------------------------


def post_mortem_markdown(s: Summary) -> str:
    """The report as markdown: problems first, then the numbers."""
    problems = problems_of(s)
    lines = [f"# Post-mortem of {s.run}", "", "## Look at first", ""]
    lines += [f"{i}. {problem}" for i, problem in enumerate(problems, start=1)] or ["No problems found."]
    lines += ["", "## The run", "", "| | |", "|---|---|"]
    lines += [f"| {name} | {value} |" for name, value in _facts(s)]
    peaks = [row for row in s.comparison if row.key in PEAKS]
    if peaks:
        lines += ["", "## Memory", "", "| | predicted | measured | verdict |", "|---|--:|--:|---|"]
        lines += [f"| {r.key} | {_bytes(r.predicted)} | {_bytes(r.measured)} | {r.verdict} |" for r in peaks]
    return "\n".join(lines) + "\n"


def _facts(s: Summary) -> list[tuple[str, str]]:
    best, speed, energy, noise = "", "unknown", "unknown", "not measured"
    if s.best_validation is not None:
        best = f", best {format_number(s.best_validation[1])} (step {s.best_validation[0]})"
    if s.tokens_per_second is not None:
        speed = f"{' / '.join(map(format_number, s.tokens_per_second))} (10, 50, 90 % of the steps are slower)"
    if s.joules_per_token is not None:
        energy = f"{format_number(s.joules_per_token)} J per token"
    if s.noise_scale_tokens is not None:
        noise = f"{format_count(round(s.noise_scale_tokens))} tokens"
    steps, data = format_duration(s.training_seconds), format_duration(s.data_seconds)
    return [
        ("ended", s.ended),
        ("steps", f"{s.steps:,} in {s.calls} calls, {format_count(s.tokens)} tokens"),
        ("loss", f"{_plain(s.first_loss)} → {_plain(s.last_loss)} nats per token (median of the last {LAST} steps)"),
        ("validation loss", f"{_plain(s.last_validation)} at the end{best}"),
        ("spikes", f"{len(s.spikes)}; {len(s.rollbacks)} rollbacks; {len(s.skipped)} updates skipped"),
        ("clipped", f"{_percent(s.clipped_share)} of the steps"),
        ("time in steps", f"{steps}, of which {data} for data"),
        ("time between steps", format_duration(s.idle_seconds)),
        ("time for evaluations", format_duration(s.evaluation_seconds)),
        ("time for checkpoints", format_duration(s.saving_seconds)),
        ("time for eval commands", format_duration(s.eval_command_seconds)),
        ("tokens/s", speed),
        ("MFU", _percent(s.mfu)),
        ("energy", energy),
        ("gradient-noise scale", noise),
        ("allocator retries", _plain(s.alloc_retries)),
    ]


def _plain(value: float | int | str | None) -> str:
    return "unknown" if value is None else value if isinstance(value, str) else format_number(value)


def _bytes(value: float | int | str | None) -> str:
    return "unknown" if value is None or isinstance(value, str) else format_bytes(value)


def _percent(value: float | None) -> str:
    return "unknown" if value is None else format_fraction(value)


def write_post_mortem(directory: Path) -> Path:
    """Write post-mortem.md and return its path. Raises FileError without metrics, or if the disk fails."""
    path = directory / POST_MORTEM
    write_atomically(path, post_mortem_markdown(summary_of(directory)), overwrite=True)
    return path
