"""Which files of a folder are read as text, and which are not, each with the reason: nothing is left out in silence."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Container, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from planner.errors import DataError
from planner.paths import is_folder
from planner.units import format_bytes, format_count_exact
from reference_trainer.data.corpus import parquet
from reference_trainer.data.corpus.streams import compression_of, first_line

TEXT_SUFFIXES = (".md", ".py", ".txt")
LINE_SUFFIXES = (".jsonl", ".ndjson")
JSON = ".json"  # JSON-lines where each line is an object; else not read
NAMED = 5  # files named on a line for people
RECORDED = 1000  # files named in meta.json
READ_SUFFIXES = (*TEXT_SUFFIXES, *LINE_SUFFIXES, JSON, parquet.SUFFIX)


@dataclass(frozen=True, slots=True)
class SkippedFile:
    """A file that is not read. path: below its folder; `bytes`: its size; why: the reason."""

    path: str
    bytes: int
    why: str


@dataclass(frozen=True, slots=True)
class Listing:
    """The files to read, in the order of their relative paths, and those that are not read."""

    files: tuple[Path, ...]
    skipped: tuple[SkippedFile, ...] = ()


@dataclass(frozen=True, slots=True)
class ReadSummary:
    """What was read of a source: files, documents (None where unknown), bytes of the files; and what was not read."""

    files: int
    documents: int | None
    bytes: int
    skipped: tuple[SkippedFile, ...] = ()


def text_suffix(name: str) -> str:
    """The ending that says what a file holds, in small letters, without that of its compression."""
    low = name.lower()
    if compression_of(low) is not None:
        low = low.rpartition(".")[0]
    return Path(low).suffix


def is_lines(name: str) -> bool:
    """Whether a file of this name is read as one JSON object a line."""
    return text_suffix(name) in (*LINE_SUFFIXES, JSON)


def text_files(path: Path, text_key: str = "text") -> Listing:
    """The file at `path`, or the text files below a folder.

    Raises DataError where there are none, for a single file that cannot be text, and for a link to nowhere.
    """
    if not is_folder(path):
        if text_suffix(path.name) == ".bin":
            raise DataError(
                f"{str(path)!r} holds compressed tokens",
                why="tokens are read at any place, which a compressed file does not allow",
                remedy="unpack it and give the .bin",
            )
        why = _why_not_lines(path, None) if text_suffix(path.name) == JSON else ""
        if why:
            raise DataError(
                f"{str(path)!r} is not JSON-lines",
                why=f"{why}; a .json is read where each of its lines is an object with a text",
                remedy=f"write one object a line, such as with: jq -c '.[]' {path.name} > lines.jsonl",
            )
        return Listing((path,))
    files: list[Path] = []
    skipped: list[SkippedFile] = []
    for file, size, why in walk(path):
        why = why or _why_not_read(file, text_key)
        if why:
            skipped.append(SkippedFile(file.relative_to(path).as_posix(), size, why))
        else:
            files.append(file)
    about = [file for file in files if file.name.lower().partition(".")[0] == "readme"]
    if len(about) < len(files):
        files = [file for file in files if file not in about]
        why = "a README is about the data beside it"
        skipped += [SkippedFile(file.relative_to(path).as_posix(), file.stat().st_size, why) for file in about]
    if not files:
        raise DataError(
            f"the folder {str(path)!r} holds no text",
            why=f"files that end in {', '.join(READ_SUFFIXES)} are read, in it and below, also compressed"
            + "".join(f"; {line}" for line in skipped_lines(skipped)),
            remedy="name a single file (.bin for tokens), or another folder",
        )
    return Listing(tuple(files), tuple(sorted(skipped, key=lambda one: one.path)))


def _why_not_read(file: Path, text_key: str) -> str:
    suffix = text_suffix(file.name)
    if suffix == JSON:
        return _why_not_lines(file, text_key)
    if suffix in READ_SUFFIXES:
        return ""
    if suffix == ".bin":
        return "it holds tokens, not text"
    if not suffix:
        packed = compression_of(file.name.lower()) is not None
        return f"its name does not say what {file.suffix} packs, such as .txt{file.suffix}" if packed else "no ending"
    return f"{suffix} is no ending of text"


def _why_not_lines(file: Path, text_key: str | None) -> str:
    """Why a .json is not read as JSON-lines; empty if it is. text_key: None where any object will do."""
    line = first_line(file)
    if not line:
        return "it is empty"
    try:
        value: Any = json.loads(line)
    except (ValueError, RecursionError):
        return "its first line is not one JSON object"
    if not isinstance(value, dict):
        return f"its first line is a JSON {type(value).__name__}, not an object"
    return "" if text_key is None or text_key in value else f"its first object has no key {text_key!r}"


def walk(root: Path, skip: Container[str] = ()) -> Iterator[tuple[Path, int, str]]:
    """(file, bytes, why it cannot be read or "") of everything below `root`, in the order of their relative paths.

    Hidden folders, links to folders and folders named in `skip` are one entry each. Raises OSError for a folder that
    cannot be listed.
    """
    found: list[tuple[Path, int, str]] = []
    waiting = [root]
    while waiting:
        folder = waiting.pop()
        with os.scandir(folder) as entries:
            for entry in entries:
                path, hidden = folder / entry.name, entry.name.startswith(".")
                if entry.is_dir():
                    link = "it is a link to a folder" if entry.is_symlink() else ""
                    why = "it is a hidden folder" if hidden else link
                    why = why or ("it is left out by name" if entry.name in skip else "")
                    if why:
                        found.append((path, 0, why))
                    else:
                        waiting.append(path)
                elif hidden:
                    found.append((path, entry.stat(follow_symlinks=False).st_size, "it is hidden"))
                elif entry.is_file() or entry.is_symlink():  # a link to nowhere is refused by name when it is opened
                    found.append((path, entry.stat(follow_symlinks=entry.is_file()).st_size, ""))
                else:
                    found.append((path, 0, "it is no file but a pipe, a socket or a device"))
    yield from sorted(found, key=lambda one: one[0].relative_to(root).as_posix())


def skipped_beside(root: Path, read: Container[Path], why: Callable[[Path], str]) -> tuple[SkippedFile, ...]:
    """All other files below `root` than those in `read`; why: the reason where the file itself gives none."""
    rest = ((file, size, reason or why(file)) for file, size, reason in walk(root) if file not in read)
    return tuple(SkippedFile(file.relative_to(root).as_posix(), size, reason) for file, size, reason in rest)


def skipped_lines(skipped: Sequence[SkippedFile]) -> list[str]:
    """A line for each reason, with the number and bytes of the files and the first names."""
    reasons: dict[str, list[SkippedFile]] = {}
    for one in skipped:
        reasons.setdefault(one.why, []).append(one)
    lines = []
    for why, files in reasons.items():
        names = ", ".join(one.path for one in files[:NAMED]) + (", …" if len(files) > NAMED else "")
        size = format_bytes(sum(one.bytes for one in files))
        lines.append(f"not read: {_count(len(files), 'file')}, {size}: {names} ({why})")
    return lines


def summary_lines(summary: ReadSummary) -> list[str]:
    """What was read and what was not, for people."""
    documents = "" if summary.documents is None else f", {_count(summary.documents, 'document')}"
    return [
        f"read {_count(summary.files, 'file')}, {format_bytes(summary.bytes)}{documents}",
        *skipped_lines(summary.skipped),
    ]


def recorded_lines(record: dict[str, Any]) -> list[str]:
    """The lines of a `summary_record`; of more files than it names, the rest is counted."""
    named = tuple(SkippedFile(**one) for one in record["skipped"])
    lines = summary_lines(ReadSummary(record["files"], record["documents"], record["bytes"], named))
    rest = record["skipped_files"] - len(named)
    return [*lines, f"not read: {_count(rest, 'file')} more"] if rest else lines


def summary_record(summary: ReadSummary) -> dict[str, Any]:
    """What was read and what was not, for JSON: of the files not read the number, the bytes, and the first names."""
    return {
        "files": summary.files,
        "documents": summary.documents,
        "bytes": summary.bytes,
        "skipped_files": len(summary.skipped),
        "skipped_bytes": sum(one.bytes for one in summary.skipped),
        "skipped": [asdict(one) for one in summary.skipped[:RECORDED]],
    }


def _count(count: int, what: str) -> str:
    return f"{format_count_exact(count)} {what}{'' if count == 1 else 's'}"
