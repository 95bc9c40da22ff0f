"""Documents out of text files, folders and JSON-lines, one at a time and in a stated order.

A text file is one document; a line of a .jsonl is one. Nothing is held in memory but the document being read.
"""

from __future__ import annotations

import json
import os
from collections.abc import Container, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from planner.errors import DataError, nearest

TEXT_SUFFIXES = (".md", ".py", ".txt")
LINE_SUFFIXES = (".jsonl", ".ndjson")


@dataclass(frozen=True, slots=True)
class TextDocument:
    """`content`: the bytes of a text file as they lie, or of a JSON text in UTF-8; `line` counts from 1.

    source_bytes: what it takes in its file, the JSON around it included.
    """

    content: bytes
    file: Path
    line: int | None
    source_bytes: int

    @property
    def place(self) -> str:
        """How a message calls it."""
        return repr(str(self.file)) + (f", line {self.line}" if self.line else "")

    def text(self) -> str:
        """The content as text. Raises DataError where it is not UTF-8."""
        try:
            return self.content.decode()
        except UnicodeDecodeError as error:
            raise DataError(
                f"{self.place} is not UTF-8",
                why=f"{error.reason} at byte {error.start}; this tokenizer reads text, not bytes",
                remedy="convert the file to UTF-8, or use the byte tokenizer",
            ) from None


def text_files(path: Path) -> list[Path]:
    """The file at `path`, or the text and JSON-lines files below a folder. Raises DataError where there are none."""
    if not path.is_dir():
        return [path]
    files = files_below(path, (*TEXT_SUFFIXES, *LINE_SUFFIXES))
    if not files:
        raise DataError(
            f"the folder {str(path)!r} holds no text",
            why=f"files that end in {', '.join((*TEXT_SUFFIXES, *LINE_SUFFIXES))} are read, in it and below",
            remedy="name a single file (.bin for tokens), or another folder",
        )
    return files


def files_below(root: Path, suffixes: tuple[str, ...], skip: Container[str] = ()) -> list[Path]:
    """Files below `root` with one of the suffixes, in the order of their relative paths; no hidden ones."""
    found: list[Path] = []
    for folder, folders, names in os.walk(root):
        folders[:] = [name for name in folders if not name.startswith(".") and name not in skip]
        found += [Path(folder, name) for name in names if name.endswith(suffixes) and not name.startswith(".")]
    return sorted(found, key=lambda file: file.relative_to(root).as_posix())


def documents(files: Iterable[Path], text_key: str = "text") -> Iterator[TextDocument]:
    """Every document of the files in turn.

    Raises DataError for a file that is not text and for a line that is not a JSON object with a text under `text_key`.
    """
    for file in files:
        try:
            yield from _documents_of(file, text_key)
        except OSError as error:
            raise DataError(
                f"cannot read {str(file)!r}", why=str(error), remedy="give files and folders that can be read"
            ) from error


def _documents_of(file: Path, text_key: str) -> Iterator[TextDocument]:
    if file.name.endswith(LINE_SUFFIXES):
        yield from _lines(file, text_key)
        return
    content = file.read_bytes()
    if b"\0" in content:
        raise DataError(
            f"{str(file)!r} is not text",
            why=f"it has a zero byte at offset {content.index(0)}",
            remedy="give text; a file of tokens must end in .bin",
        )
    yield TextDocument(content, file, None, len(content))


def _lines(file: Path, text_key: str) -> Iterator[TextDocument]:
    """Lines that are blank hold nothing and are passed over."""
    with file.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            if line.strip():
                yield TextDocument(_text_of(line, text_key, file, number), file, number, len(line))


def _text_of(line: bytes, text_key: str, file: Path, number: int) -> bytes:
    try:
        value: Any = json.loads(line)  # a UnicodeDecodeError is a ValueError, and so is a JSONDecodeError
    except (ValueError, RecursionError) as error:
        raise _bad_line(file, number, f"it is not one JSON object: {error}") from None
    if not isinstance(value, dict):
        raise _bad_line(file, number, f"it is a JSON {type(value).__name__}, not an object")
    if text_key not in value:
        close = nearest(text_key, [str(key) for key in value])
        hint = f"; the nearest key is {close[0]!r}" if close else ""
        raise _bad_line(file, number, f"it has no key {text_key!r}{hint}", "name the key of the text with --text-key")
    text = value[text_key]
    if not isinstance(text, str):
        raise _bad_line(file, number, f"{text_key!r} is a {type(text).__name__}, not a text")
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise _bad_line(file, number, f"half a surrogate pair at character {error.start}: no UTF-8 writes it") from None


def _bad_line(file: Path, number: int, why: str, remedy: str = "mend the line or take it out") -> DataError:
    return DataError(f"{str(file)!r}, line {number} cannot be used", why=why, remedy=remedy)
