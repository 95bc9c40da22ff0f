"""The schedule from the flags: warm-up and cooldown in steps, tokens or as a fraction; min_lr also as a fraction."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from planner.config.model import ModelConfig
from planner.config.options import flag
from planner.config.run import Assumption, ScheduleConfig
from planner.counts.schedule import KINDS
from planner.errors import InputError, UnknownNameError
from planner.formulas import batch
from planner.inputs.flags import Assumptions, Flags, refuse_contradictions
from planner.inputs.rule_of_size import row_of_model
from planner.inputs.run_toml import explain_validation
from planner.units import CHOSEN, format_count, format_number
from planner.units import format_count_exact as spell

WARMUP_STEPS = 2000
WARMUP_SHARE = 0.02
COOLDOWN_SHARE = 0.2
LENGTHS = ("steps", "tokens", "ratio")
# the flags that say what a schedule is without any model, and the kinds to which some are limited
FACTS: tuple[str, ...] = ("schedule", "peak_lr", "min_lr", "decay_power", "steps", "tokens", "global_batch_tokens")
FACTS += tuple(f"{part}_{unit}" for part in ("warmup", "cooldown") for unit in LENGTHS)
ONLY: dict[str, tuple[str, ...]] = {
    **{f"cooldown_{unit}": ("wsd",) for unit in LENGTHS},
    "decay_power": ("polynomial",),
    "min_lr": tuple(kind for kind in KINDS if kind != "constant"),
}


@dataclass(frozen=True, slots=True)
class Horizon:
    """The length of a schedule: steps, tokens per step (None: unknown), and the flag that lengthens it."""

    steps: int
    tokens_per_step: int | None
    flag: str


def schedule_of(
    flags: Flags,
    old: ScheduleConfig | None,
    horizon: Horizon,
    assumptions: Assumptions,
    default_peak: Callable[[], float],
) -> ScheduleConfig:
    """The schedule from the flags over `old`, the file's; `default_peak` gives the peak if neither has one.

    Raises InputError for invalid text, an unknown kind, flags without effect on the kind, and a warm-up
    plus cooldown longer than the run.
    """
    kind = _kind(flags, old, assumptions)
    peak = flags.number("peak_lr")
    if peak is None:
        peak = old.peak_lr if old else default_peak()
    floor = _floor(flags, old, kind, peak, assumptions)
    warmup = length_of(flags, "warmup", horizon)
    if warmup is None:
        warmup = old.warmup_steps if old else _default_warmup(horizon, assumptions)
    _refuse_long_warmup(flags, warmup, horizon)
    cooldown = _cooldown(flags, old, kind, warmup, horizon, assumptions)
    power = flags.number("decay_power")
    if power is None and kind == "polynomial":
        power = old.decay_power if old else 2.0
        if old is None or old.kind != kind:
            assumptions.add("decay_power", format_number(power, CHOSEN), "default: a parabola that ends flat")
    values: dict[str, Any] = {"kind": kind, "peak_lr": peak, "min_lr": floor, "warmup_steps": warmup}
    values |= {"cooldown_steps": cooldown} | ({} if power is None else {"decay_power": power})
    try:
        return ScheduleConfig(**values)
    except ValidationError as error:
        raise InputError(*explain_validation(error, "schedule")) from None


def schedule_alone(flags: Flags) -> tuple[ScheduleConfig, Horizon, tuple[Assumption, ...]]:
    """A schedule from the flags in FACTS alone, without a model; with its horizon and the defaults used.

    Raises InputError as `schedule_of` does, and when the peak or the length of the run is missing.
    """
    refuse_contradictions(flags)
    per_step, steps, tokens = (flags.count(n) for n in ("global_batch_tokens", "steps", "tokens"))
    if steps is None:
        if tokens is None or per_step is None:
            raise InputError(
                "the length of the run is missing" if tokens is None else "the tokens of one step are missing",
                why="the schedule is laid out over the steps",
                remedy="give --steps, or --tokens and --global-batch-tokens, or a model: --params 125M --tokens 10B",
            )
        if tokens < per_step:
            raise InputError(
                f"--tokens: {spell(tokens)} tokens are less than one step of {spell(per_step)} tokens",
                why="a step is never partial, so there would be none",
                remedy=f"give at least {spell(per_step)} tokens, or a smaller --global-batch-tokens",
            )
        steps = int(batch.whole_steps(tokens, per_step))
    horizon = Horizon(steps, per_step, "--steps" if tokens is None else "--tokens")
    assumptions = Assumptions(flags, None)

    def no_peak() -> float:
        raise InputError(
            "--peak-lr is missing",
            why="its default follows from the size of a model",
            remedy="give --peak-lr, such as --peak-lr 3e-4, or a model: --params 125M",
        )

    schedule = schedule_of(flags, None, horizon, assumptions, no_peak)
    return schedule, horizon, tuple(assumptions.found.values())


def default_peak(model: ModelConfig, assumptions: Assumptions) -> float:
    """The peak learning rate of the nearest model size in the table, recorded with its source."""
    row = row_of_model(model)
    rule = f"row of {format_count(row['parameters'])} parameters: {row['source']}; {row['spread']}{row['by']}"
    assumptions.add("peak_lr", format_number(row["peak_lr"], CHOSEN), rule)
    return float(row["peak_lr"])


def _kind(flags: Flags, old: ScheduleConfig | None, assumptions: Assumptions) -> str:
    kind = flags.schedule
    if kind is None:
        kind = old.kind if old else "cosine"
        if old is None:
            assumptions.add("schedule", kind, "default: cosine decay to a tenth of the peak (GPT-3 appendix B)")
    elif kind not in KINDS:
        raise UnknownNameError("schedule", kind, KINDS).with_note("--schedule, in run.toml: schedule.kind")
    for name in flags.given(*ONLY):
        if kind not in ONLY[name]:
            allowed = ONLY[name]
            raise InputError(
                f"{flag(name)} has no effect on a {kind} schedule",
                why="a constant learning rate has no minimum" if name == "min_lr" else f"it belongs to {allowed[0]}",
                remedy=f"leave it out, or give --schedule {allowed[0]}",
            )
    for key, kinds in (("cooldown_steps", ("wsd",)), ("decay_power", ("polynomial",))):
        if kind not in kinds:
            assumptions.found.pop(key, None)  # of the file's kind, not of this one
    return kind


def _floor(flags: Flags, old: ScheduleConfig | None, kind: str, peak: float, assumptions: Assumptions) -> float:
    """min_lr; text that ends in % is a fraction of the peak."""
    found = flags.number("min_lr")
    if found is not None:
        return _to_digits(found * peak) if (flags.min_lr or "").strip().endswith("%") else found
    derived_anew = "min_lr" in assumptions.found and flags.given("peak_lr", "schedule")
    if old and not derived_anew:
        return old.min_lr
    floor = _to_digits(peak / 10)
    rule = "default: a tenth of the peak (GPT-3 appendix B)"
    assumptions.add(
        "min_lr", format_number(floor, CHOSEN), rule + "; a constant schedule does not use it" * (kind == "constant")
    )
    return floor


def _to_digits(rate: float) -> float:
    """A rate without binary rounding noise: 6e-5 and not 5.9999999999999995e-05."""
    return float(f"{rate:.12g}")


def length_of(flags: Flags, part: str, horizon: Horizon) -> int | None:
    """Steps of the warm-up or cooldown: tokens are rounded up to whole steps, a fraction to the nearest step."""
    steps = flags.count(f"{part}_steps")
    if steps is not None:
        return steps
    tokens = flags.count(f"{part}_tokens")
    if tokens is not None:
        if horizon.tokens_per_step is None:
            raise InputError(
                f"{flag(part)}-tokens: the tokens of one step are not known",
                why="the steps follow from them",
                remedy=f"give {flag(part)}-steps, or add --global-batch-tokens",
            )
        return int(batch.steps_to_hold(tokens, horizon.tokens_per_step))
    ratio = flags.number(f"{part}_ratio")
    return None if ratio is None else round(ratio * horizon.steps)


def _default_warmup(horizon: Horizon, assumptions: Assumptions) -> int:
    warmup = max(1, min(WARMUP_STEPS, round(WARMUP_SHARE * horizon.steps)))
    assumptions.add("warmup_steps", warmup, "2 % of the steps, at most 2,000 (LLaMA, arXiv 2302.13971, section 2.3)")
    return warmup


def _cooldown(
    flags: Flags, old: ScheduleConfig | None, kind: str, warmup: int, horizon: Horizon, assumptions: Assumptions
) -> int:
    if kind != "wsd":
        return 0
    found = length_of(flags, "cooldown", horizon)
    said = [flag(n) for n in flags.given(*(f"cooldown_{unit}" for unit in LENGTHS))]
    if found is None and old and old.kind == kind:
        found = old.cooldown_steps
    if found is None:
        found = min(round(COOLDOWN_SHARE * horizon.steps), horizon.steps - warmup)
        assumptions.add(
            "cooldown_steps", found, "20 % of the steps, after warm-up (Hägele et al. 2024, arXiv 2405.18392)"
        )
    if warmup + found > horizon.steps:
        raise InputError(
            f"{said[0] + ':' if said else 'the'} cooldown of {spell(found)} steps{'' if said else ' in the file'} and "
            f"the warm-up of {spell(warmup)} are longer than the run of {spell(horizon.steps)} steps",
            why="the rate cannot rise and fall at once",
            remedy=f"give a {said[0] if said else '--cooldown-steps'} of at most "
            f"{spell(horizon.steps - warmup)} steps, a shorter warm-up, or more {horizon.flag}",
        )
    return found


def _refuse_long_warmup(flags: Flags, warmup: int, horizon: Horizon) -> None:
    if warmup <= horizon.steps:
        return
    said = [flag(n) for n in flags.given(*(f"warmup_{unit}" for unit in LENGTHS))]
    raise InputError(
        f"{said[0] + ':' if said else 'the'} warm-up of {spell(warmup)} steps{'' if said else ' in the file'} is "
        f"longer than the run of {spell(horizon.steps)} steps",
        why="the rate would never reach its peak",
        remedy=f"give a smaller {said[0] if said else '--warmup-steps'}, or --warmup-ratio 2%, or more {horizon.flag}",
    )
