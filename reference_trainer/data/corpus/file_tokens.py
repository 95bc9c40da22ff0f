"""Tokens of a file, read when they are sliced.

Nothing is mapped: reading past the end of a mapped file that was cut short kills the process (SIGBUS), and no check
before it can be sure that the file stays as it is. `pread` says how much it got. From the page cache it is as fast as a
map (benchmarks/LOG.md).
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from planner.errors import DataError


class FileTokens:
    """A row of `count` tokens that begins at byte `offset` of a file; a slice is a new array [n].

    The file stays open as long as there is a row of it: another that takes its name meanwhile is not read.
    """

    def __init__(self, file: OpenFile, dtype: np.dtype[Any], offset: int, count: int) -> None:
        self.file, self.dtype, self.offset, self.count = file, dtype, offset, count
        self.itemsize = dtype.itemsize

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, wanted: slice) -> npt.NDArray[Any]:
        """The tokens of a slice without a step. Raises DataError if the file cannot be read, or has become shorter."""
        begin, end, _ = wanted.indices(self.count)
        content = self.file.read(self.offset + begin * self.itemsize, max(0, end - begin) * self.itemsize)
        return np.frombuffer(content, self.dtype)

    def slice_tokens(self, begin: int, end: int) -> FileTokens:
        """The tokens from `begin` to `end`, not read."""
        begin, end, _ = slice(begin, end).indices(self.count)
        return FileTokens(self.file, self.dtype, self.offset + begin * self.itemsize, max(0, end - begin))


class OpenFile:
    """A file that is open for reading at any place, from any thread. Raises OSError if it cannot be opened."""

    def __init__(self, path: Path) -> None:
        self._handle = -1
        self.path, self._handle = path, os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self.size = os.fstat(self._handle).st_size

    def __del__(self) -> None:
        if self._handle >= 0:
            os.close(self._handle)

    def read(self, at: int, size: int) -> bytes:
        """The bytes from `at` to `at + size`. Raises DataError if they are not there."""
        try:
            content = os.pread(self._handle, size, at)
            while len(content) < size:  # the system reads 2 GiB at once, a network file system less
                more = os.pread(self._handle, size - len(content), at + len(content))
                if not more:
                    raise self._cut_short()
                content += more
        except OSError as error:
            raise DataError(
                f"{str(self.path)!r} cannot be read",
                why=error.strerror or str(error),
                remedy="check its disk, then continue with --resume",
            ) from None
        return content

    def _cut_short(self) -> DataError:
        return DataError(
            f"{str(self.path)!r} has been cut short since it was opened",
            why=f"it had {self.size} bytes, and has {os.fstat(self._handle).st_size}",
            remedy="bring the file back as it was, then continue with --resume",
        )
