"""The difference between two numbers, divided among the changes that led from one to the other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise

Number = Callable[[frozenset[str]], float | None]


@dataclass(frozen=True, slots=True)
class FieldShare:
    """The contribution of one change, or of inseparable ones, to a number. Exact: they sum to the difference."""

    names: tuple[str, ...]
    amount: Fraction


def attributed(changes: Sequence[str], number: Number) -> tuple[FieldShare, ...] | None:
    """The contribution of each change to `number(all changes) - number(no change)`; None if either is unknown.

    number: the value with only the named changes; None if it cannot be computed.

    The changes are made one after the other in their order, and then in the opposite order; a contribution is the mean
    of the two steps. For two changes that is Shapley's value: the result does not depend on the order. Changes between
    which no number can be computed form one contribution. At most 2n + 2 numbers are computed, more for joined ones.
    """
    first, last = number(frozenset()), number(frozenset(changes))
    if first is None or last is None:
        return None
    groups: list[tuple[str, ...]] = [(name,) for name in changes]
    while True:
        forward, backward = _path(groups, number), _path(groups[::-1], number)[::-1]
        broken = [i for i in range(len(groups) - 1) if forward[i + 1] is None or backward[i + 1] is None]
        if not broken:
            break
        i = broken[0]
        groups[i : i + 2] = [groups[i] + groups[i + 1]]
    return tuple(
        FieldShare(group, (there[1] - there[0] + back[0] - back[1]) / 2)
        for group, there, back in zip(groups, pairwise(_exact(forward)), pairwise(_exact(backward)), strict=True)
    )


def _path(groups: Sequence[tuple[str, ...]], number: Number) -> list[float | None]:
    """The number before any group, after the first, after the second …"""
    made: frozenset[str] = frozenset()
    found = [number(made)]
    for group in groups:
        made |= set(group)
        found.append(number(made))
    return found


def _exact(numbers: Sequence[float | None]) -> list[Fraction]:
    return [Fraction(x) for x in numbers if x is not None]
