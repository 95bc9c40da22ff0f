"""Schedules to look at: one or several laid over each other, the steps shown, their values as JSON and CSV."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from planner.analysis.ranges import schedule_findings
from planner.config.options import flag
from planner.config.run import Assumption, RunConfig, ScheduleConfig
from planner.counts.parameters import parameters_of
from planner.counts.run import steps_of, tokens_per_step
from planner.counts.schedule import Breakpoint, key_steps, schedule_rate
from planner.errors import InputError, UnknownNameError
from planner.finding import Finding
from planner.formulas import batch
from planner.inputs.flags import OPTION_NAMES, Flags
from planner.inputs.schedule import FACTS, LENGTHS, ONLY, schedule_alone
from planner.units import parse_count

MOST_CURVES = 8  # that a plot can tell apart
MOST_STEPS = 1_000_000  # rows that a person, or a spreadsheet, can be meant to read
SAMPLES = 1000
SHORT_NAMES = {"kind": "schedule", "warmup": "warmup_steps", "cooldown": "cooldown_steps", "power": "decay_power"}
RIVALS = (*(tuple(f"{part}_{unit}" for unit in LENGTHS) for part in ("warmup", "cooldown")), ("steps", "tokens"))


@dataclass(frozen=True, slots=True)
class RatePoint:
    """The learning rate of update `step`; tokens seen before it, None where only steps are known."""

    step: int
    tokens: int | None
    lr: float


@dataclass(frozen=True, slots=True)
class CurveDocument:
    """A curve as it is printed: the rates at its key steps, and at the steps that were asked for."""

    label: str
    schedule: ScheduleConfig
    steps: int
    tokens_per_step: int | None
    warmup_share: float
    landmarks: tuple[RatePoint, ...]
    values: tuple[RatePoint, ...]
    findings: tuple[Finding, ...]
    assumptions: tuple[Assumption, ...]


@dataclass(frozen=True, slots=True)
class CurvesDocument:
    """All curves; continuity: the breakpoints of each kind, where they were asked for."""

    curves: tuple[CurveDocument, ...]
    continuity: dict[str, tuple[Breakpoint, ...]]


@dataclass(frozen=True, slots=True)
class Curve:
    """A schedule of so many steps. tokens_per_step: None where only steps are known. parameters: of the model, if any.

    `label` tells it from the others; assumptions are those about the schedule.
    """

    label: str
    schedule: ScheduleConfig
    steps: int
    tokens_per_step: int | None
    parameters: int | None
    assumptions: tuple[Assumption, ...]

    def rate(self, step: int) -> float:
        """The rate of update `step`; past the end the last value stays."""
        return schedule_rate(self.schedule, self.steps, step)

    def findings(self) -> tuple[Finding, ...]:
        """What is odd about the schedule, warnings first."""
        found = schedule_findings(self.schedule, self.steps, self.parameters)
        return tuple(sorted(found, key=lambda f: f.level != "warning"))


def is_alone(flags: Flags) -> bool:
    """Whether only facts of the schedule were typed, so that no model is needed."""
    return not flags.given(*(name for name in OPTION_NAMES if name not in FACTS))


def curve_alone(flags: Flags, label: str = "") -> Curve:
    """The curve of the schedule's flags alone. Raises InputError."""
    schedule, horizon, assumed = schedule_alone(flags)
    return Curve(label or schedule.kind, schedule, horizon.steps, horizon.tokens_per_step, None, assumed)


def curve_of(config: RunConfig, label: str = "") -> Curve:
    """The curve of a run."""
    keys = {"schedule", *ScheduleConfig.model_fields}
    assumed = tuple(a for a in config.provenance.assumptions if a.key in keys)
    active = parameters_of(config.model).active
    schedule = config.schedule
    return Curve(label or schedule.kind, schedule, steps_of(config), tokens_per_step(config), active, assumed)


def variants(text: str, flags: Flags) -> tuple[tuple[str, Flags], ...]:
    """`warmup=500,2000,5000` as labels and the flags that give each: the others stand, its rivals leave.

    Over kinds, a typed flag leaves where it has no effect. Raises InputError.
    """
    name, equals, values = text.partition("=")
    texts = [value.strip() for value in values.split(",")]
    if not equals or not all(texts):
        raise InputError(
            f"--over: {text[:40]!r} is not a flag with its values",
            why="every value gives one curve",
            remedy="write it like --over warmup=500,2000,5000 or --over kind=cosine,linear,wsd",
        )
    if len(texts) > MOST_CURVES or len(set(texts)) < len(texts):
        raise InputError(
            f"--over: {len(texts)} values" + (", one of them twice" if len(set(texts)) < len(texts) else ""),
            why=f"a plot tells at most {MOST_CURVES} different curves apart",
            remedy="give fewer, or call again",
        )
    field = SHORT_NAMES.get(name, name.replace("-", "_"))
    if field not in FACTS:
        raise UnknownNameError("flag of a schedule", name, [*SHORT_NAMES, *(flag(n)[2:] for n in FACTS)])
    return tuple((f"{name}={value}", _with(flags, field, value)) for value in texts)


def _with(flags: Flags, field: str, value: str) -> Flags:
    if field in ("warmup_steps", "cooldown_steps") and value.endswith("%"):
        field = field.replace("steps", "ratio")
    leaving = {name for group in RIVALS if field in group for name in group}
    if field == "schedule":
        leaving |= {name for name, kinds in ONLY.items() if value not in kinds}
    return replace(flags, **({name: None for name in leaving} | {field: value}))


def steps_shown(at: str | None, every: str | None, last: int) -> tuple[int, ...]:
    """The steps of `--at 10,20,30` and `--every N` up to `last`, in order; () where neither was typed.

    Raises InputError for text that is no count, and for more steps than can be read.
    """
    found = {parse_count(text, name="--at", allow_zero=True) for text in at.split(",")} if at is not None else set()
    if every is not None:
        stride = parse_count(every, name="--every")
        if last // stride > MOST_STEPS:
            raise InputError(
                f"--every: {last // stride:,} values",
                why=f"at most {MOST_STEPS:,} are written",
                remedy=f"give --every {-(-last // MOST_STEPS):,} or more",
            )
        found |= {*range(stride, last, stride), last}
    return tuple(sorted(found))


def last_step(curves: Sequence[Curve]) -> int:
    """The last step of the longest."""
    return max(curve.steps for curve in curves)


def marks_of(curves: Sequence[Curve]) -> tuple[int, ...]:
    """The key steps of all curves."""
    return tuple(sorted({k for curve in curves for k in key_steps(curve.schedule, curve.steps)}))


def sampled_steps(curves: Sequence[Curve], samples: int = SAMPLES) -> tuple[int, ...]:
    """Evenly spread steps from 0 to the last, with the key steps, at which a curve is drawn."""
    last = last_step(curves)
    return tuple(sorted({last * i // samples for i in range(samples + 1)} | set(marks_of(curves))))


def csv_text(curves: Sequence[Curve], steps: Sequence[int]) -> str:
    """A row per step: step, tokens where all curves share them, and the rate of each curve, unrounded."""
    per_step = _shared_tokens(curves)
    names = ["learning_rate"] if len(curves) == 1 else [curve.label for curve in curves]
    lines = [",".join(["step", *(["tokens"] if per_step else []), *names])]
    for k in steps:
        cells = [k, *([k * per_step] if per_step else []), *(curve.rate(k) for curve in curves)]
        lines.append(",".join(map(repr, cells)))
    return "\n".join(lines) + "\n"


def _shared_tokens(curves: Sequence[Curve]) -> int | None:
    sizes = {curve.tokens_per_step for curve in curves}
    return sizes.pop() if len(sizes) == 1 else None


def curves_document(
    curves: Sequence[Curve], steps: Sequence[int], breakpoints: Sequence[tuple[str, Sequence[Breakpoint]]]
) -> dict[str, Any]:
    """A `CurvesDocument` as plain values: key steps, values at `steps`, findings, and breakpoints if asked for."""

    def points(curve: Curve, marks: Sequence[int]) -> tuple[RatePoint, ...]:
        size = curve.tokens_per_step
        return tuple(RatePoint(k, k * size if size else None, curve.rate(k)) for k in marks)

    found = [
        CurveDocument(
            label=curve.label,
            schedule=curve.schedule,
            steps=curve.steps,
            tokens_per_step=curve.tokens_per_step,
            warmup_share=float(batch.warmup_share(curve.schedule.warmup_steps, curve.steps)),
            landmarks=points(curve, key_steps(curve.schedule, curve.steps)),
            values=points(curve, steps),
            findings=curve.findings(),
            assumptions=curve.assumptions,
        )
        for curve in curves
    ]
    values = asdict(CurvesDocument(tuple(found), {kind: tuple(each) for kind, each in breakpoints}))
    for each, curve in zip(values["curves"], curves, strict=True):
        each["schedule"] = curve.schedule.model_dump(mode="json")
        each["assumptions"] = [a.model_dump() for a in curve.assumptions]
    return values
