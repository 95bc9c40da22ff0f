"""Compares two plans and attributes each difference to the changed fields."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from planner.analysis.attribution import FieldShare, attributed
from planner.analysis.headline import Figure, figures, numbers_of
from planner.errors import PlanError
from planner.inputs.flags import OPTION_NAMES, Flags
from planner.plan import Plan


@dataclass(frozen=True, slots=True)
class Difference:
    """One number of two plans; `shares` by changed field, None if a number is unknown."""

    before: Figure
    after: Figure
    shares: tuple[FieldShare, ...] | None


def changed_fields(before: Flags, after: Flags) -> tuple[str, ...]:
    """The fields with different text, in the order of the form."""
    return tuple(n for n in OPTION_NAMES if getattr(before, n) != getattr(after, n))


def differences(changes: Sequence[str], plan_of: Callable[[frozenset[str]], Plan]) -> tuple[Difference, ...]:
    """Every figure of the plan without and with the changes.

    plan_of: the plan with only the named changes; if it raises PlanError the changes are joined.
    """
    known: dict[frozenset[str], Mapping[str, float | None] | None] = {}

    def number(key: str, made: frozenset[str]) -> float | None:
        if made not in known:
            try:
                known[made] = numbers_of(plan_of(made))
            except PlanError:
                known[made] = None
        found = known[made]
        return None if found is None else found[key]

    pairs = zip(figures(plan_of(frozenset())), figures(plan_of(frozenset(changes))), strict=True)
    return tuple(
        Difference(a, b, attributed(changes, lambda made, key=a.key: number(key, made)))  # type: ignore[misc]
        for a, b in pairs
    )
