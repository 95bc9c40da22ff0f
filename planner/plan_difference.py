"""Two plans side by side, each difference divided among the fields that were changed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from planner.attribution import Share, attributed
from planner.errors import PlanError
from planner.field_help import label
from planner.figures import Figure, figures, numbers_of
from planner.plan import Plan
from planner.text import table
from planner.typed import Typed

NOTE = "Each share is the mean of changing that field first and changing it last; the shares sum to the difference."


@dataclass(frozen=True, slots=True)
class Difference:
    """One number of two plans; `shares` by changed field, None where a number is unknown."""

    before: Figure
    after: Figure
    shares: tuple[Share, ...] | None


def changed_fields(before: Typed, after: Typed) -> tuple[str, ...]:
    """The fields that were typed differently, in the order of the form."""
    return tuple(n for n in Typed.__dataclass_fields__ if getattr(before, n) != getattr(after, n))


def differences(changes: Sequence[str], plan_of: Callable[[frozenset[str]], Plan]) -> tuple[Difference, ...]:
    """Every figure of the plan without and with the changes.

    plan_of: the plan when only the named changes are made; where it raises PlanError the changes are joined.
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


def difference_lines(found: Sequence[Difference]) -> list[str]:
    """A table: pinned, now, difference; below each number the fields that moved it."""
    rows: list[tuple[str, ...]] = [("", "pinned", "now", "difference")]
    for d in found:
        spell = d.after.plain
        if d.before.value is None or d.after.value is None:
            rows.append((d.after.title, spell(d.before.value), spell(d.after.value), "unknown"))
            continue
        total = d.after.value - d.before.value
        rows.append((d.after.title, spell(d.before.value), spell(d.after.value), signed(total, spell)))
        for share in d.shares or ():
            if share.amount:
                name = " + ".join(label(n) for n in share.names)
                rows.append((f"  by {name}", "", "", signed(float(share.amount), spell)))
    return [line[2:] for line in table(rows, right=frozenset({1, 2, 3}))]


def signed(x: float, spell: Callable[[float | None], str]) -> str:
    """A difference with its sign; none is said in a word."""
    return "the same" if x == 0 else ("+" if x > 0 else "") + spell(x)
