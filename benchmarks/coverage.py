"""Which choices of a config are checked by a test: option by runtime by checkpointing, read from the config classes.

A choice is a value of a `Literal`, of a switch or of a recipe, or that an optional key is given or not. It is exact
if a case of `data/option_cases.toml` makes it; else it is stated in `data/coverage.toml` with a reason.
"""

from __future__ import annotations

import itertools
import tomllib
import types
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from benchmarks.option_cases import CHECKPOINTING, PLAIN, Row, cases, config_of, rows
from planner import presets
from planner.config.model import ModelConfig
from planner.config.parallel import ParallelConfig
from planner.config.run import HardwareConfig, OptimizerConfig, RunConfig, ScheduleConfig, TrainingConfig
from planner.counts.run import resolve
from planner.memory.coverage import not_covered

FILE = Path(__file__).parent / "data" / "coverage.toml"
SECTIONS: dict[str, type[BaseModel]] = {
    "model": ModelConfig,
    "training": TrainingConfig,
    "optimizer": OptimizerConfig,
    "schedule": ScheduleConfig,
    "hardware": HardwareConfig,
    "parallel": ParallelConfig,
}
RUNTIMES = get_args(TrainingConfig.model_fields["runtime"].annotation)
KINDS = ("exact", "form", "interval", "same", "refused")
AXES = ("training.runtime", "training.activation_checkpointing")
GIVEN, ABSENT, DEFAULT, OTHER = "given", "absent", "default", "other"
Choice = tuple[str, str]  # option such as "model.norm", value
Cell = tuple[str, str, str, str]  # option, value, runtime, checkpointing


@dataclass(frozen=True, slots=True)
class Status:
    """kind: exact, form, interval, same or refused. reason: if it is stated. test: the test that checks it."""

    kind: str
    reason: str = ""
    test: str = ""


EXACT = Status("exact", test="tests/reference_trainer/predictions/test_order_options.py")
# runtimes whose saved bytes are closed forms
CLOSED_FORMS = {
    "compiled": Status("form", "the partitioner's cut", "tests/reference_trainer/predictions/test_compiled_saved.py"),
    "fused": Status("form", "Megatron-Core's published terms", "tests/planner/memory/test_megatron.py"),
}
CLOSED_FORM_RECIPES = ("pure-bf16", "mixed-bf16", "fp32")


@cache
def _stated() -> dict[str, Any]:
    return tomllib.loads(FILE.read_text(encoding="utf-8"))


def choices(sections: Mapping[str, type[BaseModel]] = SECTIONS) -> Iterator[Choice]:
    """Every choice of the sections, except the two that are axes of the table."""
    for path, section in sections.items():
        for name, field in section.model_fields.items():
            option = f"{path}.{name}"
            if option in AXES or option in _stated()["sizes"]:
                continue
            yield from ((option, value) for value in _values(option, field.annotation, field.default))
            inner = _section(field.annotation)
            if inner is not None:
                yield from choices({option: inner})


def _values(option: str, annotation: Any, default: Any) -> tuple[str, ...]:
    if option == "training.recipe":
        return tuple(presets.recipe_ids())
    arms = get_args(annotation) if get_origin(annotation) in (Union, types.UnionType) else (annotation,)
    found = [str(v) for arm in arms if get_origin(arm) is Literal for v in get_args(arm)]
    if found:
        return (*found, ABSENT) if type(None) in arms else tuple(found)
    if type(None) in arms:
        return (ABSENT, GIVEN)
    if annotation is bool:
        return ("no", "yes")
    return (DEFAULT, OTHER) if default is not PydanticUndefined else ("given",)


def _section(annotation: Any) -> type[BaseModel] | None:
    arms = get_args(annotation) or (annotation,)
    return next((arm for arm in arms if isinstance(arm, type) and issubclass(arm, BaseModel)), None)


def chosen(config: RunConfig) -> set[Choice]:
    """The choices that a config makes."""
    return set(itertools.chain(*(_chosen(path, getattr(config, path)) for path in SECTIONS)))


def _chosen(path: str, section: BaseModel) -> Iterator[Choice]:
    for name, field in type(section).model_fields.items():
        option, value = f"{path}.{name}", getattr(section, name)
        known = _values(option, field.annotation, field.default)
        if isinstance(value, bool):
            yield option, "yes" if value else "no"
        elif value is None:
            yield option, ABSENT
        elif str(value) in known:
            yield option, str(value)
        elif GIVEN in known:
            yield option, GIVEN
        else:
            yield option, DEFAULT if value == field.default else OTHER
        if isinstance(value, BaseModel):
            yield from _chosen(option, value)


@cache
def exact_cells() -> frozenset[Cell]:
    """The cells that the cases reach."""
    found: set[Cell] = set()
    for row in rows():
        config = config_of(row)
        found |= {(*choice, row.runtime, row.checkpointing) for choice in chosen(config)}
    return frozenset(found)


@cache
def closed_form_cells() -> Mapping[Cell, str]:
    """The cells of compiled and fused programs: "" if covered, else the reason for the eager bytes as a bound."""
    found: dict[Cell, str] = {}
    trainable = [name for name in presets.recipe_ids() if presets.recipe(name).trainable]
    for (name, case), runtime in itertools.product(cases().items(), CLOSED_FORMS):
        recipes = trainable if name in PLAIN else CLOSED_FORM_RECIPES
        for mode, recipe in itertools.product(case.get("checkpointing", CHECKPOINTING), recipes):
            config = config_of(Row(name, runtime, recipe, mode))
            why = not_covered(resolve(config)) or ""
            for choice in chosen(config):
                cell = (*choice, runtime, mode)
                found[cell] = found.get(cell, why) and why
    return found


def status(cell: Cell) -> Status | None:
    """How a combination is known; None if it has neither a test nor a reason.

    Of several statements the most specific counts; of two equally specific ones, the one that names the option.
    """
    if cell in exact_cells():
        return EXACT
    if cell in closed_form_cells():
        why = closed_form_cells()[cell]
        return (
            Status("interval", f"{why}: the eager bytes are shown as an upper bound") if why else CLOSED_FORMS[cell[2]]
        )
    names = ("option", "value", "runtime", "checkpointing")
    fits = [
        rule
        for rule in _stated()["stated"]
        if all(name not in rule or part in rule[name] for name, part in zip(names, cell, strict=True))
    ]
    if not fits:
        return None
    rule = max(fits, key=lambda rule: (sum(name in rule for name in names), "option" in rule))
    return Status(rule["status"], rule["reason"], rule.get("test", ""))


def cells() -> Iterator[Cell]:
    """Every combination."""
    for (option, value), runtime, mode in itertools.product(choices(), RUNTIMES, CHECKPOINTING):
        yield option, value, runtime, mode


def table() -> str:
    """The page: a row for every choice, a column for every runtime; then the reasons."""
    reasons: dict[str, str] = {}
    lines = [f"| option | value | {' | '.join(RUNTIMES)} |", "|---|---|" + "---|" * len(RUNTIMES)]
    for option, value in choices():
        shown = [_shown((option, value), runtime, reasons) for runtime in RUNTIMES]
        lines.append(f"| `{option}` | {value} | {' | '.join(shown)} |")
    known = [status(cell) for cell in cells()]
    kinds = {kind: sum(s is not None and s.kind == kind for s in known) for kind in KINDS}
    total = f"{len(known)} combinations: " + ", ".join(f"{number} {kind}" for kind, number in kinds.items()) + "."
    notes = [f"[{number}] {reason}" for reason, number in reasons.items()]
    return "\n\n".join([total, "\n".join(lines), *notes])


def _shown(choice: Choice, runtime: str, reasons: dict[str, str]) -> str:
    """One cell: one word if all kinds of checkpointing agree, else one for each."""
    words = {}
    for mode in CHECKPOINTING:
        known = status((*choice, runtime, mode))
        text = "?" if known is None else known.kind
        if known is not None and known.reason:
            shown_reason = known.reason + (f" (`{known.test}`)" if known.test else "")
            text += f" [{reasons.setdefault(shown_reason, str(len(reasons) + 1))}]"
        words[mode] = text
    if len(set(words.values())) == 1:
        return next(iter(words.values()))
    return ", ".join(f"{mode}: {text}" for mode, text in words.items())
