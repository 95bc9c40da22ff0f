"""YAML as training engines write their settings: nested mappings, lists, plain values; nothing that runs or refers."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from planner.errors import FileError

MOST_YAML_LINES = 20_000
DEEPEST_YAML = 30
_KEY = re.compile(r"""("[^"]*"|'[^']*'|[^\s#"'\[\]{},&*!|>%@`-][^:#]*?|-[^\s:][^:#]*?):(?:\s+(.*))?$""")
_WORDS = {"true": True, "false": False, "null": None, "~": None, "": None, "yes": True, "no": False}
_NUMBER = re.compile(r"[-+]?(\d[\d_]*\.?\d*([eE][-+]?\d+)?|\.\d+([eE][-+]?\d+)?)$")


def yaml_values(text: str, path: Path) -> dict[str, Any]:
    """The mapping of a YAML document. Raises FileError for anything beyond nested mappings, lists and plain values."""
    lines = [
        (len(line) - len(line.lstrip(" ")), line.strip(), number) for number, line in enumerate(text.split("\n"), 1)
    ]
    kept = [(depth, _without_comment(line), number) for depth, line, number in lines if line and line != "---"]
    kept = [one for one in kept if one[1]]
    if len(kept) > MOST_YAML_LINES:
        raise FileError(f"{path} is too long", why=f"it has more than {MOST_YAML_LINES} lines", remedy="give settings")
    reader = _Reader(kept, path)
    value = reader.block(kept[0][0], 0) if kept else {}
    if not isinstance(value, dict) or reader.place < len(kept):
        raise reader.wrong("it is no mapping of settings")
    return value


def _without_comment(line: str) -> str:
    quote = ""
    for place, sign in enumerate(line):
        if quote:
            quote = "" if sign == quote else quote
        elif sign in "\"'":
            quote = sign
        elif sign == "#" and (place == 0 or line[place - 1] in " \t"):
            return line[:place].rstrip()
    return line


class _Reader:
    """Reads lines one after the other; `place` is the next."""

    def __init__(self, lines: list[tuple[int, str, int]], path: Path) -> None:
        self.lines, self.path, self.place = lines, path, 0

    def wrong(self, why: str) -> FileError:
        at = self.lines[min(self.place, len(self.lines) - 1)][2] if self.lines else 1
        return FileError(f"{self.path} is not understood", why=f"line {at}: {why}", remedy="write plain YAML")

    def block(self, depth: int, level: int) -> Any:
        """The mapping or list whose lines begin at this column."""
        if level > DEEPEST_YAML:
            raise self.wrong("it is nested too deep")
        return self._list(depth, level) if self._is_item() else self._mapping(depth, level)

    def _is_item(self) -> bool:
        line = self.lines[self.place][1]
        return line == "-" or line.startswith("- ")

    def _list(self, depth: int, level: int) -> list[Any]:
        found: list[Any] = []
        while self.place < len(self.lines) and self.lines[self.place][0] == depth and self._is_item():
            rest = self.lines[self.place][1][1:].strip()
            if rest and _KEY.match(rest):  # a mapping that begins behind the dash
                inner = depth + self.lines[self.place][1].index(rest)
                self.lines[self.place] = (inner, rest, self.lines[self.place][2])
                found.append(self._mapping(inner, level + 1))
                continue
            self.place += 1
            found.append(self._plain(rest) if rest else self._below(depth, level))
        return found

    def _mapping(self, depth: int, level: int) -> dict[str, Any]:
        found: dict[str, Any] = {}
        while self.place < len(self.lines) and self.lines[self.place][0] == depth:
            match = _KEY.match(self.lines[self.place][1])
            if match is None:
                raise self.wrong("it is neither `key: value` nor an item of a list")
            key, rest = str(self._plain(match[1].strip())), (match[2] or "").strip()
            if key in found:
                raise self.wrong(f"the key {key!r} comes twice")
            if rest[:1] in ("&", "*", "!", "|", ">"):
                raise self.wrong("anchors, tags and long texts are not read")
            self.place += 1
            found[key] = self._plain(rest) if rest else self._below(depth, level)
        if self.place < len(self.lines) and self.lines[self.place][0] > depth:
            raise self.wrong("it is indented and belongs to nothing")
        return found

    def _below(self, depth: int, level: int) -> Any:
        """What is indented under a key, or a list at its own column; None if nothing is."""
        if self.place < len(self.lines):
            there = self.lines[self.place][0]
            if there > depth or (there == depth and self._is_item()):
                return self.block(there, level + 1)
        return None

    def _plain(self, text: str) -> Any:
        if text[:1] in ("[", "{", '"'):
            try:
                return json.loads(text)
            except (ValueError, RecursionError):
                if text[:1] == "[" and text.endswith("]"):
                    return [self._plain(part.strip()) for part in text[1:-1].split(",") if part.strip()]
                raise self.wrong("a list or text is cut short") from None
        if text[:1] == "'":
            if len(text) < 2 or not text.endswith("'"):
                raise self.wrong("a text is cut short")
            return text[1:-1].replace("''", "'")
        if text.lower() in _WORDS:
            return _WORDS[text.lower()]
        if _NUMBER.match(text) and len(text) < 40:
            bare = text.replace("_", "")
            return int(bare) if re.fullmatch(r"[-+]?\d+", bare) else float(bare)
        return text
