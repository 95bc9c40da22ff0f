"""The form's groups, made from the one table of fields: the questions that every plan needs, then each panel's rest."""

from __future__ import annotations

from typing import NamedTuple

from planner.inputs.fields import MAIN, panels
from planner.inputs.flags import Flags


class Group(NamedTuple):
    """A part of the form; `opened` from the start."""

    id: str
    title: str
    fields: tuple[str, ...]
    opened: bool = False


def groups() -> tuple[Group, ...]:
    """Every field of `Flags` once."""
    rest = {panel: tuple(n for n in names if n not in MAIN) for panel, names in panels().items()}
    others = [Group(f"group-{i}", panel, names) for i, (panel, names) in enumerate(rest.items(), 1) if names]
    return (Group("group-0", "Main", MAIN, opened=True), *others)


def group_of(field: str) -> str:
    """The id of the group that holds a field."""
    return next(group.id for group in groups() if field in group.fields)


def typed_in(group: Group, flags: Flags) -> int:
    """How many fields of a group have a text."""
    return len(flags.given(*group.fields))
