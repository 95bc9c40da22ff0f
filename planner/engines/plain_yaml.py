"""YAML of plain values, written without a package: mappings, lists, numbers, text, true, false and null."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any


def yaml_text(values: dict[str, Any]) -> str:
    """A YAML document of nested mappings and lists. Text is quoted as in JSON, which YAML contains."""
    return "\n".join([*_lines(values, 0), ""])


def _lines(values: dict[str, Any], depth: int) -> Iterator[str]:
    for key, value in values.items():
        start = f"{'  ' * depth}{key}:"
        if isinstance(value, dict) and value:
            yield start
            yield from _lines(value, depth + 1)
        elif isinstance(value, str) and "\n" in value:
            yield f"{start} |"
            yield from (f"{'  ' * (depth + 1)}{line}".rstrip() for line in value.rstrip("\n").split("\n"))
        elif isinstance(value, list) and any(isinstance(item, dict) for item in value):
            yield start
            for item in value:
                first, *rest = _lines(item, depth + 2)
                yield f"{'  ' * (depth + 1)}- {first.strip()}"
                yield from rest
        else:
            yield f"{start} {_plain(value)}"


def _plain(value: Any) -> str:
    if isinstance(value, float):
        return _number(value)
    return json.dumps(value)


def _number(value: float) -> str:
    """YAML 1.1 reads 1e-08 as text: an exponent needs a point before it."""
    text = repr(value)
    mantissa, mark, exponent = text.partition("e")
    return f"{mantissa}.0e{exponent}" if mark and "." not in mantissa else text
