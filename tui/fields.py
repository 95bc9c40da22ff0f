"""The groups of the form: the fields that every plan needs first, then the rest of each panel."""

from __future__ import annotations

from typing import NamedTuple

from planner.config.options import MAIN, panels
from planner.inputs.flags import Flags


class FieldGroup(NamedTuple):
    """A part of the form; opened: whether it is open at the start."""

    id: str
    title: str
    fields: tuple[str, ...]
    opened: bool = False


def groups() -> tuple[FieldGroup, ...]:
    """Every field of `Flags` once."""
    rest = {panel: tuple(n for n in names if n not in MAIN) for panel, names in panels().items()}
    others = [FieldGroup(f"group-{i}", panel, names) for i, (panel, names) in enumerate(rest.items(), 1) if names]
    return (FieldGroup("group-0", "Main", MAIN, opened=True), *others)


def group_of(field: str) -> str:
    """The id of the group that holds a field."""
    return next(group.id for group in groups() if field in group.fields)


def fields_set(group: FieldGroup, flags: Flags) -> int:
    """How many fields of a group are filled."""
    return len(flags.given(*group.fields))
