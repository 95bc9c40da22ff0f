"""One row per option: its flag, key, help and resume rule stand in one table, and every reader covers it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import fields
from typing import Any, Literal, get_args, get_origin

import pytest
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from planner.config.options import MAIN, OPTION, OPTIONS, Option, panels, value_at
from planner.config.resume import RULE_OF, keys_of_a_config
from planner.config.resume_rules import WITHOUT_FLAG
from planner.config.run import RunConfig
from planner.errors import InputError
from planner.inputs.draft import draft
from planner.inputs.effective import WITHOUT_VALUE, effective
from planner.inputs.flags import Flags
from planner.plan import estimate


def test_each_option_has_one_row_a_panel_and_a_sentence() -> None:
    assert max(Counter(option.name for option in OPTIONS).values()) == 1
    assert all(option.panel and option.help and option.short for option in OPTIONS)
    assert set(MAIN) <= set(OPTION)


def test_the_typed_fields_are_the_rows() -> None:
    assert {field.name for field in fields(Flags)} == set(OPTION)


def test_the_panels_hold_each_option_once() -> None:
    assert sorted(name for names in panels().values() for name in names) == sorted(OPTION)


def leaf_keys(kind: Any, prefix: str = "") -> Iterator[str]:
    """Every key of a section, and of the sections in it."""
    for name, field in kind.model_fields.items():
        inner = [k for k in (field.annotation, *get_args(field.annotation)) if isinstance(k, type)]
        sections = [k for k in inner if issubclass(k, BaseModel)]
        yield f"{prefix}{name}"
        for section in sections:
            yield from leaf_keys(section, f"{prefix}{name}.")


def test_every_key_of_the_table_is_one_of_the_config_and_has_one_row() -> None:
    keys = Counter(option.key for option in OPTIONS if option.key)
    keys.update(key for _, _, without in WITHOUT_FLAG for key in without)
    assert set(keys) <= set(leaf_keys(RunConfig))
    assert [key for key, count in keys.items() if count > 1] == []


def test_every_key_of_a_config_has_a_row_or_a_reason_and_a_resume_rule() -> None:
    rows = {option.key for option in OPTIONS} | {key for _, _, keys in WITHOUT_FLAG for key in keys}
    sections = {key.rpartition(".")[0] for key in rows}

    def known(key: str) -> bool:
        """By its own row, by that of what it is a part of (model.mla), or as the name of a section with rows."""
        parts = key.split(".")
        return key in sections or any(".".join(parts[:end]) in rows for end in range(1, len(parts) + 1))

    assert [key for key in leaf_keys(RunConfig) if not known(key)] == []
    assert set(keys_of_a_config()) <= set(RULE_OF)


def test_effective_values_are_those_of_the_table() -> None:
    plan = estimate(draft(Flags(model="gpt2", tokens="1B", gpu="a100-80gb"), as_of="2026-11-21", version="test"))
    assert set(effective(plan)) == set(OPTION) - set(WITHOUT_VALUE)


def field_of(key: str) -> FieldInfo:
    """The field of a dotted key."""
    kind: Any = RunConfig
    *sections, name = key.split(".")
    for section in sections:
        field = kind.model_fields[section]
        kind = next(k for k in (field.annotation, *get_args(field.annotation)) if hasattr(k, "model_fields"))
    found: FieldInfo = kind.model_fields[name]
    return found


def literals_of(field: FieldInfo) -> tuple[str, ...]:
    """The names that a field takes, () where it takes others than names."""
    kinds = (field.annotation, *get_args(field.annotation))
    return next((get_args(kind) for kind in kinds if get_origin(kind) is Literal), ())


WITH_KEY = [option for option in OPTIONS if option.key]


@pytest.mark.parametrize("option", WITH_KEY, ids=lambda o: o.name)
def test_the_choices_are_the_names_that_the_config_takes(option: Option) -> None:
    choices = option.kind.choices if option.kind.parser == "choice" else ()
    assert choices == literals_of(field_of(option.key))


BARE = RunConfig.model_validate(
    draft(Flags(model="gpt2", tokens="10B"), as_of="2026-11-21", version="test").model_dump()
)


@pytest.mark.parametrize("option", WITH_KEY, ids=lambda o: o.name)
def test_the_default_in_the_help_is_the_config_s(option: Option) -> None:
    """Of the field itself where it has one; else the draft's, for a plan of which nothing else was typed."""
    field = field_of(option.key)
    try:
        told = Flags(**{option.name: option.default or None}).value(option.name)
    except InputError:
        told = None  # a rule in words, such as "the recipe's"
    if not field.is_required() and field.default is not None and option.name in WITH_OWN_DEFAULT:
        assert told == field.default
    if told is not None and option.name not in ("min_lr", "gpu"):  # a part of the peak; a rule
        assert value_at(BARE, option.key) == told


WITH_OWN_DEFAULT = [
    option.name
    for option in WITH_KEY
    if not field_of(option.key).is_required()
    and field_of(option.key).default is not None
    and not option.key.startswith("model.")  # a preset or a family has its own
    and option.name not in ("runtime", "optimizer_implementation", "cooldown_steps")  # a rule chooses
]


def test_an_option_whose_key_has_a_default_says_it() -> None:
    assert [name for name in WITH_OWN_DEFAULT if not OPTION[name].default] == []
    assert len(WITH_OWN_DEFAULT) > 10
