"""The numbers of `estimate --json` by key: paths with dots, spaces as underscores, phases by their names."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from planner.errors import InputError, UnknownNameError

NAMED_BY = "phase"  # an entry of a list that has this field goes by its value, and by its position too


def leaves(document: Mapping[str, Any]) -> dict[str, Any]:
    """Every value of the document by its key, texts and nulls too."""
    return dict(_below(document, ""))


def numbers(found: Mapping[str, Any]) -> dict[str, int | float]:
    """The numeric ones."""
    return {key: value for key, value in found.items() if is_number(value)}


def is_number(value: Any) -> bool:
    """Whether it is a number; true and false are not."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def number_at(document: Mapping[str, Any], key: str) -> tuple[str, int | float]:
    """The key as `leaves` spells it, and its number.

    Raises UnknownNameError for a key that is not there, InputError for one without a number.
    """
    found = leaves(document)
    spelled = _spelled(key)
    if spelled not in found:
        spelled = _named(document, spelled)
    if spelled not in found:
        known = [name for name, value in found.items() if value is None or is_number(value)]
        raise UnknownNameError("key", key, known)
    value = found[spelled]
    if value is None:
        raise InputError(
            f"{spelled} is unknown in this plan (null)",
            why="a number that it follows from was not given and is not in the presets",
            remedy="the findings of gptplan estimate say what is missing, such as --mfu, --dataset-tokens, "
            "--price-per-gpu-hour",
        )
    if not is_number(value):
        raise InputError(
            f"{spelled} is no number but {value!r}",
            why="only numbers have a formula",
            remedy="gptplan explain --list shows the keys that have one",
        )
    return spelled, value


def _spelled(key: str) -> str:
    return key.strip().replace(" ", "_")


def _below(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for name, inner in value.items():
            yield from _below(inner, f"{path}.{_spelled(str(name))}" if path else _spelled(str(name)))
    elif isinstance(value, list | tuple):
        for i, inner in enumerate(value):
            name = inner[NAMED_BY] if isinstance(inner, Mapping) and NAMED_BY in inner else i
            yield from _below(inner, f"{path}.{name}")
    else:
        yield path, value


def _named(document: Mapping[str, Any], key: str) -> str:
    """The key with the positions of named entries replaced by their names."""
    value: Any = document
    parts = key.split(".")
    for i, part in enumerate(parts):
        if isinstance(value, list | tuple):
            if not part.isdecimal() or int(part) >= len(value):
                return key
            value = value[int(part)]
            if isinstance(value, Mapping) and NAMED_BY in value:
                parts[i] = value[NAMED_BY]
        elif isinstance(value, Mapping) and part in value:
            value = value[part]
        else:
            return key
    return ".".join(parts)
