"""Records every formula call (name, arguments, result) made while a plan is computed; `explain` reads this record.

Formulas stay plain functions; the interpreter's profiler reports their calls while one computation runs. It costs a few
milliseconds and is used by `explain` only. A number is followed by the object itself, never by its value: `whole` and
`real` give each result an object of its own while a computation is recorded.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from types import FrameType
from typing import Any, TypeVar

from planner.formulas.formula import FORMULAS, Formula
from planner.formulas.ops import Num

Result = TypeVar("Result")
_current = threading.local()  # .calls: the record of this thread's computation, while there is one


@dataclass(frozen=True, slots=True)
class Call:
    """One call of a formula: its arguments by name, and what it returned."""

    formula: Formula
    arguments: dict[str, Any]
    result: Any


class _RecordedInt(int):
    """A whole number with an object of its own: the interpreter shares the objects of small integers."""


def whole(result: Num) -> int:
    """What a formula just returned, as an int."""
    return _owned(result, _RecordedInt) if is_recording() else int(result)


def real(result: Num) -> float:
    """What a formula just returned, as a float; an array of many stays one."""
    if is_recording():
        return _owned(result, float)
    return result if getattr(result, "ndim", 0) else float(result)


def _owned(result: Num, kind: type[Result]) -> Result:
    number, calls = kind(result), _current.calls  # type: ignore[call-arg]
    if calls and calls[-1].result is result:
        calls[-1] = replace(calls[-1], result=number)
    return number


def is_recording() -> bool:
    """Whether this thread's computation is recorded: then nothing may be taken from a cache."""
    return getattr(_current, "calls", None) is not None


def made_by(calls: tuple[Call, ...], number: Any) -> Call | None:
    """The last call that returned this very object. Equal numbers are other objects."""
    if type(number) is int and int(str(number)) is number:
        return None  # one object for all that are equal
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
    _current.calls = calls
    sys.setprofile(watch)
    try:
        result = compute()
    finally:
        sys.setprofile(before)
        _current.calls = None
    return result, tuple(calls)
