"""The wizard: asks for the fields of a plan one after the other. It does no terminal input or output.

It asks for what every plan needs first, then offers the other fields of each panel. `<` goes back; answers
are kept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

from planner.config.options import EITHER, MAIN, OPTION, ended_by, flag, panels
from planner.config.run import RunConfig
from planner.errors import InputError, PlanError
from planner.inputs.architecture import CHOICES
from planner.inputs.effective import effective
from planner.inputs.field_names import field_text
from planner.inputs.flags import OPTION_NAMES, Flags
from planner.plan import Plan

BACK, HELP, CLEAR = "<", "?", "-"
YES, NO = ("y", "yes"), ("n", "no", "")
SIGNS = f"Enter: take the value in brackets. {HELP}: help. {BACK}: back. {CLEAR}: remove an answer."
# what --params chooses by one rule, so that it cannot be asked beside it
BY_PARAMS = ("heads", "kv_heads", "head_dim", "ffn", "family", *CHOICES)
# the preset is asked before the number of parameters: who names one is not asked for the other
FIRST = ("model", *(name for name in MAIN if name != "model"))
PlanOf = Callable[[Flags], Plan]


class Step(NamedTuple):
    """One step of the wizard: a field, an offer of a panel's other fields, or the end."""

    kind: Literal["field", "panel", "end"]
    name: str = ""


END = Step("end")
TOP = Step("field", FIRST[0])
NOTHING = Flags()


@dataclass(frozen=True, slots=True)
class WizardState:
    """The answers so far. `start`: the example, or nothing if a file is given; an answer replaces it.

    plan: of the last valid answers. missing: a field that the plan still needs. before: previous state, for `<`.
    """

    start: Flags
    plan: Plan | None = None
    answers: Flags = NOTHING
    panels: frozenset[str] = frozenset()
    at: Step = TOP
    missing: str | None = None
    before: WizardState | None = None

    @property
    def flags(self) -> Flags:
        """The answers over the start values, without start values that they exclude."""
        kept = {n: getattr(self.start, n) for n in self.start.given(*OPTION_NAMES) if not _excluded(n, self.answers)}
        return replace(self.answers, **{n: text for n, text in kept.items() if getattr(self.answers, n) is None})


class Prompt(NamedTuple):
    """A prompt: a sentence, a short label, and the default with its reason."""

    sentence: str
    prompt: str
    value: str
    why: str


def begin(start: Flags, plan_of: PlanOf) -> tuple[WizardState, str]:
    """The first state, and a message if this machine's GPU is unknown: then the GPU is asked for first."""
    try:
        return WizardState(start, plan_of(start)), ""
    except PlanError as error:
        return WizardState(start, at=Step("field", "gpu"), missing="gpu"), error.message()


def question(state: WizardState) -> Prompt:
    """The prompt of a state that is not at its end."""
    kind, name = state.at
    if kind == "panel":
        more = [OPTION[n].short for n in _rest(name) if not _excluded(n, state.answers)]
        return Prompt(f"{name}: {', '.join(more)}.", f"More about {name.lower()}? yes or no", "no", "")
    value, why = _effect(state, name)
    return Prompt(OPTION[name].help.rstrip("."), OPTION[name].short, value, why)


def answer(state: WizardState, text: str, plan_of: PlanOf) -> tuple[WizardState, str]:
    """The state after an answer, and "" or one message about it; an invalid answer repeats the prompt."""
    text = "".join(c for c in text if c.isprintable()).strip()
    if text == BACK:
        if state.before is None:
            return state, "This is the first field."
        return replace(state, at=state.before.at, before=state.before.before, missing=None), ""
    if state.at.kind == "panel":
        return _about_panel(state, text)
    name = state.at.name
    if text == HELP:
        _, why = _effect(state, name)
        return state, field_text(name) + (f"\n  effective: {why}" if why else "")
    answers = state.answers
    if text:
        answers = replace(answers, **{name: None if text == CLEAR else text})
    tried = replace(state, answers=answers, missing=None)
    try:
        after = replace(tried, plan=plan_of(tried.flags))
    except PlanError as error:
        missing = _missing(error)
        if missing is None or missing == name:
            return state, error.message()
        return _go(replace(tried, missing=missing), Step("field", missing), state), ""
    if text == CLEAR:
        return replace(after, before=state.before), ""  # the same field again: its brackets show the new default
    return _go(after, _next(after) if state.plan is not None else TOP, state), ""


def _about_panel(state: WizardState, text: str) -> tuple[WizardState, str]:
    name, word = state.at.name, text.lower()
    if text == HELP:
        return state, "\n".join(
            f"{OPTION[n].short}: {OPTION[n].sentence}" for n in _rest(name) if not _excluded(n, state.answers)
        )
    if word not in YES + NO:
        return state, InputError(f"{text[:40]!r} is neither yes nor no", remedy="answer y or n").message()
    opened = state.panels | {name} if word in YES else state.panels - {name}
    after = replace(state, panels=opened)
    return _go(after, _next(after), state), ""


def _go(state: WizardState, step: Step, before: WizardState) -> WizardState:
    return replace(state, at=step, before=before)


def _next(state: WizardState) -> Step:
    """The next step, without those that an answer excludes."""
    steps = list(_steps(state))
    rest = steps[steps.index(state.at) + 1 :]
    return next(step for step in rest if step.kind != "field" or not _excluded(step.name, state.answers))


def _steps(state: WizardState) -> Iterator[Step]:
    yield from (Step("field", name) for name in FIRST)
    for panel in panels():
        rest = _rest(panel)
        if rest:
            yield Step("panel", panel)
        if panel in state.panels or state.at in {Step("field", name) for name in rest}:
            yield from (Step("field", name) for name in rest)
    yield END


def _rest(panel: str) -> tuple[str, ...]:
    return tuple(name for name in panels()[panel] if name not in MAIN)


def _excluded(name: str, answers: Flags) -> bool:
    """Whether an answer to another field already decides this one."""
    others = [n for names, _ in EITHER if name in names for n in names if n != name]
    others += ["params"] if name in BY_PARAMS else list(BY_PARAMS) if name == "params" else []
    return bool(answers.given(*others)) and getattr(answers, name) is None


def _missing(error: PlanError) -> str | None:
    """The field that an error message calls missing, if the wizard has it."""
    word, _, _ = error.what.partition(" is missing")
    return next((name for name in OPTION_NAMES if flag(name) == word), None)


def _effect(state: WizardState, name: str) -> tuple[str, str]:
    """The default of a field, and its reason."""
    answered = getattr(state.answers, name)
    if answered is not None:
        return answered, "your answer"
    if state.missing == name:
        return "none yet", f"{flag(name)} is needed too"
    if state.plan is None:
        return "none yet", ""
    started = getattr(state.flags, name)
    if started is not None:
        return started, "example value"
    values = effective(state.plan)
    return values.get(name, "not given"), _reason(state.plan, name) if name in values else ""


def _reason(plan: Plan, name: str) -> str:
    if name == "price_per_gpu_hour":
        return plan.cost.price_source
    return _assumed(plan.config, name)


def _assumed(config: RunConfig, name: str) -> str:
    keys = (name, *ended_by(name))
    return next((a.source for key in keys for a in config.provenance.assumptions if a.key == key), "")
