"""`--set name=value` as arguments of a calculation: numbers, vectors with commas, matrices with semicolons."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from planner.analysis.textbook.register import Calculation
from planner.errors import InputError, UnknownNameError
from planner.units import parse_count, parse_number


def arguments_of(calculation: Calculation, settings: Iterable[str]) -> dict[str, Any]:
    """The typed values, each of the kind of its argument's default.

    Raises UnknownNameError for a name that is no argument, InputError and UnitError for what cannot be read.
    """
    known = calculation.defaults
    found: dict[str, Any] = {}
    for setting in settings:
        name, equals, text = (part.strip() for part in setting.partition("="))
        if not equals or not text:
            raise InputError(
                f"--set: {setting!r} is no setting",
                why="a setting is NAME=VALUE",
                remedy=f"such as --set {_example(known)}",
            )
        if not known:
            raise InputError(
                f"{calculation.id} ({calculation.name}) has no arguments",
                why="it states facts",
                remedy=f"leave out --set: gptplan explain {calculation.id}",
            )
        if name not in known:
            raise UnknownNameError("argument", name, known)
        if name in found:
            raise InputError(
                f"--set: {name} is given twice", why="one value would be ignored", remedy=f"give one {name}"
            )
        found[name] = _value(name, text, known[name])
    return found


def _example(known: dict[str, Any]) -> str:
    for name, value in known.items():
        if not isinstance(value, tuple):
            return f"{name}={value}"
        if value and not isinstance(value[0], tuple):
            return f"{name}={','.join(str(entry) for entry in value)}"
    return "NAME=VALUE"


def _value(name: str, text: str, default: Any) -> Any:
    if not isinstance(default, tuple):
        return _whole(name, text) if isinstance(default, int) and _is_counter(name) else _number(name, text)
    first = default[0]
    if isinstance(first, tuple):
        return tuple(_vector(name, row, first[0]) for row in text.split(";"))
    return _vector(name, text, first)


def _vector(name: str, text: str, like: Any) -> tuple[Any, ...]:
    read = _whole if isinstance(like, int) else _number
    return tuple(read(name, entry) for entry in text.split(","))


def _is_counter(name: str) -> bool:
    """Arguments that steer a loop or an index, and must be whole."""
    return name in ("target", "targets", "at", "elements", "given")


def _whole(name: str, text: str) -> int:
    return parse_count(text.strip(), name=f"--set {name}", allow_zero=True)


def _number(name: str, text: str) -> float | int:
    """A number with its sign; a whole one stays whole, so that counts are exact; NaN may stand in a log of norms."""
    plain = text.strip()
    if plain.lower() in ("nan", "inf"):
        return math.nan if plain.lower() == "nan" else math.inf
    sign, plain = (-1, plain[1:]) if plain.startswith("-") else (1, plain)
    number = parse_number(plain, name=f"--set {name}", allow_zero=True)
    return sign * (int(plain) if plain.isdecimal() else number)
