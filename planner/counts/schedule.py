"""The segments of a schedule: which formula of `formulas/schedule.py` applies at which step, for numbers and symbols.

The same segments give the learning rate of every update and, with sympy symbols, the proof of continuity.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise

from planner.config.run import ScheduleConfig
from planner.formulas.formula import FORMULAS
from planner.formulas.ops import Num
from planner.formulas.recording import real
from planner.formulas.schedule import (
    constant_rate,
    cooldown_rate,
    cosine_rate,
    inverse_sqrt_rate,
    linear_rate,
    polynomial_rate,
    warmup_rate,
)

DECAYS: dict[str, Callable[..., Num]] = {
    "cosine": cosine_rate,
    "linear": linear_rate,
    "polynomial": polynomial_rate,
    "inverse_sqrt": inverse_sqrt_rate,
    "constant": constant_rate,
}
KINDS = (*DECAYS, "wsd")


@dataclass(frozen=True, slots=True)
class Segment:
    """A formula and the steps from `start` to `end` over which it holds."""

    name: str
    start: Num
    end: Num
    formula: Callable[..., Num]

    def rate(self, step: Num, numbers: Mapping[str, Num]) -> Num:
        """Its rate at a step; `numbers` are the schedule's, by their names in `quantities`."""
        names = FORMULAS[self.formula.__name__].arguments
        return self.formula(**{name: step if name == "step" else numbers[name] for name in names})


def segments(kind: str, numbers: Mapping[str, Num]) -> tuple[Segment, ...]:
    """The segments of a kind in their order, each beginning where the one before ends."""
    warmup, steps = numbers["warmup_steps"], numbers["steps"]
    first = Segment("warm-up", 0, warmup, warmup_rate)
    if kind == "wsd":
        turn = steps - numbers["cooldown_steps"]
        return first, Segment("constant", warmup, turn, constant_rate), Segment("cooldown", turn, steps, cooldown_rate)
    return first, Segment(kind, warmup, steps, DECAYS[kind])


def schedule_rate(schedule: ScheduleConfig, steps: int, step: int) -> float:
    """Learning rate of update `step` = 1 … `steps`; 0 is where warm-up starts; past the end the last value stays."""
    step = min(step, steps)
    if step == schedule.warmup_steps:
        return schedule.peak_lr  # exactly, whatever the rounding of either segment
    numbers = {
        "warmup_steps": schedule.warmup_steps,
        "root_start": max(schedule.warmup_steps, 1),
        "cooldown_steps": schedule.cooldown_steps,
        "steps": steps,
        "peak_lr": schedule.peak_lr,
        "min_lr": schedule.min_lr,
        "decay_power": schedule.decay_power,
    }
    here = next(p for p in segments(schedule.kind, numbers) if p.start < p.end and step <= p.end)
    return real(here.rate(step, numbers))


def key_steps(schedule: ScheduleConfig, steps: int) -> tuple[int, ...]:
    """Steps worth showing: start, middle and end of warm-up, quarters of the decay, the turn to a cooldown, the end."""
    warmup = schedule.warmup_steps
    marks = {0, warmup // 2, warmup, steps}
    if schedule.kind == "wsd":
        marks |= {steps - schedule.cooldown_steps, steps - schedule.cooldown_steps // 2}
    elif schedule.kind != "constant":
        marks |= {warmup + (steps - warmup) * i // 4 for i in (1, 2, 3)}
    return tuple(sorted(marks))


@dataclass(frozen=True, slots=True)
class Breakpoint:
    """Where two segments meet, as symbols: the value of each there, and whether sympy finds them equal.

    At the last step there is no next segment, and `right` is the final value of the kind.
    """

    at: str
    left_piece: str
    left: str
    right_piece: str
    right: str
    equal: bool


def continuity(kind: str) -> tuple[Breakpoint, ...]:
    """The breakpoints of a kind, shown with symbols: W warm-up, C cooldown and T steps, p peak, f min_lr, n power.

    The peak is written f + d with d >= 0, which is what "the floor is not above the peak" means to sympy.
    W is at least 1: without warm-up there is nothing to join.
    """
    import sympy  # 0.25 s, wanted here only

    warmup, cooldown, steps, floor, power = sympy.symbols("W C T f n", positive=True)
    above, peak = sympy.Symbol("d", nonnegative=True), sympy.Symbol("p", positive=True)
    numbers = {
        "warmup_steps": warmup,
        "root_start": warmup,
        "cooldown_steps": cooldown,
        "steps": steps,
        "peak_lr": floor + above,
        "min_lr": floor,
        "decay_power": power,
    }
    found, spelled = segments(kind, numbers), {warmup: "W", steps: "T"}

    def meeting(at: Num, left: Segment, name: str, right: Num) -> Breakpoint:
        ours = sympy.simplify(left.rate(at, numbers))
        theirs = sympy.simplify(right)
        texts = [str(sympy.simplify(value.subs(above, peak - floor))) for value in (ours, theirs)]
        equal = sympy.simplify(ours - theirs) == 0
        return Breakpoint(spelled.get(at, "T - C"), left.name, texts[0], name, texts[1], equal)

    breakpoints = [meeting(a.end, a, b.name, b.rate(a.end, numbers)) for a, b in pairwise(found)]
    tail = sympy.Max(floor, (floor + above) * sympy.sqrt(warmup / steps))  # never at the floor for sure
    promised = {"constant": floor + above, "inverse_sqrt": tail}.get(kind, floor)
    return *breakpoints, meeting(steps, found[-1], "end", promised)
