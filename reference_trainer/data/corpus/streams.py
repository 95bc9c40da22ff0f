"""The bytes of a file, decompressed where its name says so, a part at a time; damage is named with its place."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import IO, Any, cast

from planner.errors import DataError, MissingExtraError
from planner.files import open_ordinary
from planner.units import format_bytes

READ_BYTES = 2**17  # bytes of a compressed file that are read together
ZSTD_READ_BYTES = 2**13  # fewer: each part comes out whole, and zeros can be a thousand times as long
MAX_LINE_BYTES = 2**30  # a longer line is no document but a file without line ends; it would fill the memory
SAMPLE_BYTES = 2**20  # bytes from which the size of the whole is estimated


class _ZstdFile(io.RawIOBase):
    """The contents of a .zst of one frame or several. The package's own reader takes a file cut short for its end."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file, self._ready = file, b""
        self._zstd: Any = import_module("zstandard")
        self._frame: Any = None  # the frame that is being read

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._ready:
            part = self._frame.unused_data if self._frame is not None and self._frame.eof else b""
            part = part or self._file.read(ZSTD_READ_BYTES)
            if not part:
                if self._frame is not None and not self._frame.eof:
                    raise EOFError("the file ends inside a frame")
                return 0
            if self._frame is None or self._frame.eof:
                self._frame = self._zstd.ZstdDecompressor().decompressobj()
            self._ready = self._frame.decompress(part)
        size = min(len(buffer), len(self._ready))
        buffer[:size], self._ready = self._ready[:size], self._ready[size:]
        return size


Opener = Callable[[IO[bytes]], IO[bytes]]
OPENERS: dict[str, Opener] = {
    ".gz": lambda file: cast(IO[bytes], gzip.GzipFile(fileobj=file, mode="rb")),
    ".bz2": lambda file: cast(IO[bytes], bz2.BZ2File(file)),
    ".xz": lambda file: cast(IO[bytes], lzma.LZMAFile(file)),  # noqa: SIM115 (the caller closes the file)
    ".zst": lambda file: cast(IO[bytes], io.BufferedReader(_ZstdFile(file), READ_BYTES)),
}


def compression_of(name: str) -> str | None:
    """How a file of this name is compressed: a key of OPENERS, None for not at all."""
    suffix = Path(name).suffix.lower()
    return suffix if suffix in OPENERS else None


@contextmanager
def opened(file: Path) -> Iterator[tuple[IO[bytes], IO[bytes]]]:
    """The contents of `file`, decompressed, and the file itself. Raises MissingExtraError, OSError."""
    kind = compression_of(file.name)
    if kind == ".zst" and find_spec("zstandard") is None:
        raise MissingExtraError("zstandard", "zstd", f"reading {file.name}")
    with open_ordinary(file) as raw:
        yield (raw if kind is None else OPENERS[kind](raw)), raw


def contents(file: Path) -> bytes:
    """All of it. Raises DataError where it is damaged, or longer than 1 GiB when it is decompressed."""
    parts: list[bytes] = []
    size = 0
    with opened(file) as (stream, _), _damage_named(file, lambda: f"after {_bytes(parts)} of its contents"):
        while part := stream.read(READ_BYTES):
            parts.append(part)
            size += len(part)
            if size > MAX_LINE_BYTES:
                raise DataError(
                    f"{str(file)!r} cannot be used",
                    why=f"it holds more than {format_bytes(MAX_LINE_BYTES)}, and a text file is one document in memory",
                    remedy="write its documents as JSON-lines, or cut it into several files",
                )
    return b"".join(parts)


def lines(file: Path) -> Iterator[bytes]:
    """Its lines, one in memory at a time. Raises DataError where it is damaged, or a line is longer than 1 GiB."""
    number = 0
    with opened(file) as (stream, _), _damage_named(file, lambda: f"after line {number}"):
        while line := stream.readline(MAX_LINE_BYTES + 1):
            number += 1
            if len(line) > MAX_LINE_BYTES:
                raise DataError(
                    f"{str(file)!r}, line {number} cannot be used",
                    why=f"it is longer than {format_bytes(MAX_LINE_BYTES)}, and a document is held in memory",
                    remedy="write one JSON object a line",
                )
            yield line


def first_line(file: Path) -> bytes:
    """The first line that is not blank; only its first MiB where it does not begin a JSON object. Raises DataError."""
    with opened(file) as (stream, _), _damage_named(file, lambda: "at its beginning"):
        while line := stream.readline(SAMPLE_BYTES):
            if line.strip():
                whole = line.endswith(b"\n") or line.lstrip()[:1] != b"{"
                return line if whole else line + stream.readline(MAX_LINE_BYTES)
    return b""


def estimated_bytes(file: Path) -> int:
    """The size of the contents; of a compressed file as its first MiB is compressed, which costs no second pass."""
    size = file.stat().st_size
    if compression_of(file.name) is None:
        return size
    with opened(file) as (stream, raw), _damage_named(file, lambda: "at its beginning"):
        found = len(stream.read(SAMPLE_BYTES))
        return round(found * size / max(1, raw.tell()))


@contextmanager
def _damage_named(file: Path, place: Callable[[], str]) -> Iterator[None]:
    """Turns what the decompressors raise of damage into a DataError."""
    broken: tuple[type[Exception], ...] = (EOFError, zlib.error, lzma.LZMAError, gzip.BadGzipFile)
    kind = compression_of(file.name)
    if kind == ".zst":
        broken += (import_module("zstandard").ZstdError,)
    if kind == ".bz2":
        broken += (OSError, ValueError)  # "Invalid data stream"
    try:
        yield
    except broken as error:
        raise DataError(
            f"{str(file)!r} is damaged",
            why=f"{place()} it cannot be decompressed: {error}",
            remedy="copy or download it again",
        ) from error


def _bytes(parts: list[bytes]) -> str:
    return f"{sum(map(len, parts)):,} bytes"
