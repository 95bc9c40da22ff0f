"""Random harm to bytes, to text, and to the values of JSON: what files look like when they are not what we expect."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Callable, Sequence
from typing import Any

NUMBERS = (
    "0", "-1", "1", "2", "1e400", "-1e400", "nan", "inf", "-inf", "1e18", "1e19", "1e30", "9" * 30, "9" * 5000, "0.5",
    "1e-320", "1.5", "-0", "00", "0x10", "1_0", "١٢", "1,5", "2147483648", "9223372036854775808",
)  # fmt: skip
TEXTS = (
    "", " ", "\x00", "\x1b[31m", "é", "\u202e", "😀", "a" * 300, "../" * 20, "/dev/zero", "true", "None", "null", 
    "%s%n",     "{}", "[", "--", "-", "=", "\\", '"', "'", "\ud7ff", "\r\n", "\ufeff", "NaN",
)  # fmt: skip
DEEP = "a list in a list in a list"  # becomes one when it is written: Python's own functions are recursive
VALUES: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 2, 0.5, -0.5, 1e18, 1e308, float("nan"), float("inf"), 10**19, 10**30, -(10**30),
    1 << 63, "", "x", "1", "\x1b[2J", "a" * 300, [], {}, [1], [None], {"a": 1}, [[[]]], "nan", "float16", 3.0,
)  # fmt: skip


def changed_bytes(content: bytes, rng: random.Random) -> bytes:
    """Some bytes flipped, cut, doubled, moved or put in."""
    data = bytearray(content)
    for _ in range(rng.choice((1, 1, 1, 2, 5))):
        at = rng.randrange(len(data) + 1)
        to = min(len(data), at + rng.choice((1, 2, 4, 8, 64)))
        match rng.randrange(6):
            case 0:
                del data[at:]
            case 1:
                del data[at:to]
            case 2:
                data[at:at] = data[at:to] * rng.choice((1, 2, 50))
            case 3:
                data[at:to] = bytes(rng.randrange(256) for _ in range(to - at))
            case 4:
                data[at:to] = rng.choice((0, 127, 255)).to_bytes(1, "little") * (to - at)
            case _ if at < len(data):
                data[at] ^= 1 << rng.randrange(8)
    return bytes(data)


def changed_text(text: str, rng: random.Random) -> str:
    """A line dropped, doubled or moved; a word replaced by a nasty one; or bytes harmed."""
    lines = text.split("\n")
    at = rng.randrange(len(lines))
    match rng.randrange(7):
        case 0:
            del lines[at]
        case 1:
            lines.insert(rng.randrange(len(lines) + 1), lines[at])
        case 2:
            other = rng.randrange(len(lines))
            lines[at], lines[other] = lines[other], lines[at]
        case 3 | 4 | 5:
            lines[at] = changed_line(lines[at], rng)
        case _:
            return changed_bytes(text.encode("utf-8"), rng).decode("utf-8", "replace")
    return "\n".join(lines)


def changed_line(line: str, rng: random.Random) -> str:
    """One word of a line replaced, or the value after = or :."""
    for mark in (" = ", ": "):
        key, found, value = line.partition(mark)
        if found and rng.random() < 0.7:
            quoted = json.dumps(rng.choice(TEXTS)) if rng.random() < 0.5 else rng.choice(TEXTS)
            return key + found + rng.choice((rng.choice(NUMBERS), quoted, f"[{value}]", f"{value}{value}"))
    words = line.split(" ")
    words[rng.randrange(len(words))] = rng.choice(NUMBERS + TEXTS)
    return " ".join(words)


def changed_json(value: Any, rng: random.Random, others: Sequence[Any] = ()) -> Any:
    """A copy with one to four of its values replaced, dropped, renamed, nested or doubled."""
    whole = [copy.deepcopy(value)]
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        container, key = rng.choice(list(_places(whole)))
        _harm(container, key, rng, others)
    return whole[0] if whole else None


def _places(container: Any, depth: int = 50) -> Any:
    keys = range(len(container)) if isinstance(container, list) else list(container)
    for key in keys:
        yield container, key
        if isinstance(container[key], list | dict) and depth:
            yield from _places(container[key], depth - 1)


def _harm(container: Any, key: Any, rng: random.Random, others: Sequence[Any]) -> None:
    value = container[key]
    kinds: list[Callable[[], Any]] = [lambda: copy.deepcopy(rng.choice(VALUES))] * 3
    kinds += [
        lambda: [value],
        lambda: {"a": value},
        lambda: str(value) if isinstance(value, int | float | str) else "x",
        lambda: DEEP,
    ]
    if isinstance(value, int | float) and not isinstance(value, bool):
        kinds += [lambda: -value, lambda: value + 1, lambda: value * 1000, lambda: value / 3, lambda: 0] * 2
    if others:
        kinds += [lambda: copy.deepcopy(rng.choice(others))] * 2
    if isinstance(container, dict) and rng.random() < 0.25:
        taken = container.pop(key)
        if rng.random() < 0.5:
            container[rng.choice((f"{key}_", f"{key}"[:-1], "", "a" * 300, "\x1b[0m"))] = taken
        return
    container[key] = rng.choice(kinds)()


def json_bytes(value: Any, rng: random.Random) -> bytes:
    """A value as JSON, now and then as bytes that are none."""
    text = json.dumps(value, indent=rng.choice((None, 1)))
    depth = rng.choice((20, 2000, 200_000))
    text = text.replace(json.dumps(DEEP), "[" * depth + "]" * depth)
    if rng.random() < 0.1:
        text = text.replace("1", rng.choice(NUMBERS), rng.choice((1, -1)))
    content = text.encode(rng.choice(("utf-8",) * 18 + ("utf-16", "utf-8-sig")))
    return changed_bytes(content, rng) if rng.random() < 0.15 else content
