"""`--set name=value` as arguments of a calculation: numbers, vectors with commas, matrices with semicolons."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from planner.analysis.textbook.register import Calculation
from planner.analysis.textbook.vocabulary import quantity
from planner.errors import InputError, UnknownNameError
from planner.units import parse_count, parse_number

# whole in the question, and any number elsewhere
MEASURED = ("gpu_hours", "ffn_factor", "passes")
SIGNED = (
    "gradient", "gradients", "upstream", "sums", "weight", "weights", "biases", "logits", "values", "gain", "shift",
    "x", "slope", "offset", "wanted", "batch_means",
)  # fmt: skip
SHARES = ("beta1", "beta2", "momentum", "new_share")


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
        return _entry(name, text, default)
    first = default[0]
    if isinstance(first, tuple):
        return tuple(_vector(name, row, first[0]) for row in text.split(";"))
    return _vector(name, text, first)


def _vector(name: str, text: str, like: Any) -> tuple[Any, ...]:
    return tuple(_entry(name, entry, like) for entry in text.split(","))


def _entry(name: str, text: str, like: Any) -> float | int:
    """One number, in the range of what it means: counts are whole, norms and prices not negative, shares at most 1."""
    if isinstance(like, int) and name not in MEASURED:
        return _whole(name, text)
    number = _number(name, text)
    if name not in SIGNED and number < 0:
        raise InputError(
            f"--set {name}: {text.strip()} is negative",
            why=f"{quantity(name).meaning}: it has no sign",
            remedy=f"give {name} as 0 or more",
        )
    if name in SHARES and not number <= 1:
        raise InputError(
            f"--set {name}: {text.strip()} is above 1",
            why=f"{quantity(name).meaning}: it is a share",
            remedy=f"give {name} from 0 to 1",
        )
    return number


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
