"""Which formulas a computation called, with which numbers: what `explain` reads, so that it cannot tell another story.

Formulas stay plain functions; the interpreter's profiler reports their calls while one computation runs. It costs a few
milliseconds and is used by `explain` only.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from types import FrameType
from typing import Any, TypeVar

from planner.formulas.formula import FORMULAS, Formula

Result = TypeVar("Result")
SHARED_INTEGERS = 1025  # the interpreter keeps one object of each small integer, whoever computed it


@dataclass(frozen=True, slots=True)
class Call:
    """One call of a formula: its arguments by name, and what it returned."""

    formula: Formula
    arguments: dict[str, Any]
    result: Any
    recorded: bool = True  # False: made up afterwards from numbers of the plan


def made_by(calls: tuple[Call, ...], number: Any) -> Call | None:
    """The last call that returned this very object. Equal numbers are other objects, but for small integers: None."""
    if isinstance(number, int) and abs(number) < SHARED_INTEGERS:
        return None
    return next((call for call in reversed(calls) if call.result is number), None)


def recorded(compute: Callable[[], Result]) -> tuple[Result, tuple[Call, ...]]:
    """What `compute` returns, and the calls of registered formulas on the way, in the order in which they returned."""
    by_code = {found.function.__code__: found for found in FORMULAS.values()}
    open_calls: dict[int, dict[str, Any]] = {}
    calls: list[Call] = []

    def watch(frame: FrameType, event: str, returned: Any) -> None:
        found = by_code.get(frame.f_code)
        if found is None or event not in ("call", "return"):
            return
        if event == "call":
            open_calls[id(frame)] = {name: frame.f_locals[name] for name in found.arguments}
        else:
            calls.append(Call(found, open_calls.pop(id(frame)), returned))

    before = sys.getprofile()
    sys.setprofile(watch)
    try:
        result = compute()
    finally:
        sys.setprofile(before)
    return result, tuple(calls)
