"""JSON that a file holds: read within bounds, and refused where programs would read different things out of it.

What is read back may have been written by another program, cut short by a full disk, or made to do harm. Refused are
more than 64 levels, whole numbers of more than 40 digits, NaN and infinity (1e400 is one), a name that comes twice in
an object, and text that is not UTF-8.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from planner.errors import FileError
from planner.files import MOST_BYTES, read_bytes

DEEPEST = 64  # levels of lists and objects
MOST_VALUES = 4_000_000  # of a document: each takes up to 64 bytes
LARGEST_WHOLE = 10**40  # no count of this field comes near it, and a float still holds it

_T = TypeVar("_T")


def parsed_json(content: bytes | str, allow_nonfinite: bool = False) -> Any:
    """The value of a JSON document; a byte order mark before it is left out. Raises ValueError, with the reason.

    allow_nonfinite: take NaN and infinity, which other programs write and JSON does not have.
    """
    if isinstance(content, bytes):
        try:
            content = content.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise ValueError(f"it is not UTF-8, at byte {error.start}") from None
    if sum(map(content.count, "[{,")) > MOST_VALUES:
        raise ValueError(f"it has more than {MOST_VALUES:,} values")
    try:
        value = json.loads(content, object_pairs_hook=_once)
    except RecursionError:
        raise ValueError(f"it is nested deeper than {DEEPEST} levels") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"line {error.lineno}: {error.msg}") from None
    _check(value, allow_nonfinite)
    return value


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = Counter(name for name, _ in pairs).most_common(1)[0][0]
        raise ValueError(f"the name {twice!r} comes twice")
    return found


def _check(value: Any, allow_nonfinite: bool) -> None:
    """Raises ValueError for what goes too deep, is too large, or is not finite. Level by level, without recursion."""
    level, depth = [value], 0
    while level:
        depth += 1
        below: list[Any] = []
        for one in level:
            kind = type(one)
            if depth > DEEPEST and kind in (dict, list):
                raise ValueError(f"it is nested deeper than {DEEPEST} levels")
            if kind is dict:
                below.extend(one.values())
            elif kind is list:
                below.extend(one)
            elif kind is float and not (allow_nonfinite or math.isfinite(one)):
                raise ValueError("it has NaN, or a number beyond 10^308, which JSON cannot hold")
            elif kind is int and abs(one) > LARGEST_WHOLE:
                raise ValueError("it has a whole number of more than 40 digits")
        level = below


def read_json(path: Path, most: int = MOST_BYTES) -> Any:
    """The value in a JSON file. Raises FileError, with the reason."""
    return json_of(read_bytes(path, most), path)


def json_of(content: bytes, path: Path) -> Any:
    """The value in a JSON file's bytes. Raises FileError, with the reason."""
    try:
        return parsed_json(content)
    except ValueError as error:
        raise FileError(f"{path} is damaged", why=str(error), remedy="bring back a good copy") from None


def checked_by(schema: TypeAdapter[_T], value: Any) -> _T:
    """A value of JSON as its schema has it, nothing converted. Raises ValueError with the first mistake and its place.

    value: as `parsed_json` returns it.
    """
    try:
        return schema.validate_json(json.dumps(value), strict=True)  # a list is a tuple in JSON only
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        wrong = str(first["msg"]).removeprefix("Value error, ").replace("Input should be", "it must be")
        more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
        raise ValueError(f"{place}: {wrong}{more}" if place else f"{wrong}{more}") from None
