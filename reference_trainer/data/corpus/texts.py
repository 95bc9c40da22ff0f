"""Documents out of text files, JSON-lines and Parquet, one at a time and in a stated order.

A text file is one document; a line of a .jsonl is one, and a row of a .parquet. Nothing is held in memory but the
document being read (of Parquet: a few rows).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from planner.errors import DataError, nearest
from reference_trainer.data.corpus import parquet
from reference_trainer.data.corpus.listing import is_lines, text_suffix
from reference_trainer.data.corpus.streams import contents, estimated_bytes, lines


@dataclass(frozen=True, slots=True)
class TextDocument:
    """`content`: the bytes of a text file as they lie, or of a JSON text in UTF-8; `line` counts from 1, rows too.

    source_bytes: what it takes in its file when that is decompressed, the JSON around it included.
    """

    content: bytes
    file: Path
    line: int | None
    source_bytes: int

    @property
    def place(self) -> str:
        """Its name in messages."""
        unit = "row" if text_suffix(self.file.name) == parquet.SUFFIX else "line"
        return repr(str(self.file)) + (f", {unit} {self.line}" if self.line else "")

    def text(self) -> str:
        """The content as text. Raises DataError if it is not UTF-8."""
        try:
            return self.content.decode()
        except UnicodeDecodeError as error:
            raise DataError(
                f"{self.place} is not UTF-8",
                why=f"{error.reason} at byte {error.start}; this tokenizer reads text, not bytes",
                remedy="convert the file to UTF-8, or use the byte tokenizer",
            ) from None


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


def source_bytes(file: Path, text_key: str) -> int:
    """The `source_bytes` of all documents of a file together, estimated where it is compressed. Raises as `documents`.

    Where it is not, this is its size.
    """
    if text_suffix(file.name) == parquet.SUFFIX:
        return parquet.column_bytes(file, text_key)
    return estimated_bytes(file)


def _documents_of(file: Path, text_key: str) -> Iterator[TextDocument]:
    if is_lines(file.name):
        yield from _lines(file, text_key)
    elif text_suffix(file.name) == parquet.SUFFIX:
        for row, content in parquet.texts(file, text_key):
            yield TextDocument(content, file, row, len(content))
    else:
        content = contents(file)
        if b"\0" in content:
            raise DataError(
                f"{str(file)!r} is not text",
                why=f"it has a zero byte at offset {content.index(0)}",
                remedy="give text, JSON-lines or Parquet; a file of tokens must end in .bin",
            )
        yield TextDocument(content, file, None, len(content))


def _lines(file: Path, text_key: str) -> Iterator[TextDocument]:
    """The lines of a file; blank lines are skipped."""
    for number, line in enumerate(lines(file), 1):
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
