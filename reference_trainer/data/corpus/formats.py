"""Files of tokens: nanoGPT's (uint16, no header) and llm.c's shards (1024 bytes of header, then uint16 or uint32).

Source of the header: llm.c, dev/data/data_common.py (`write_datafile`): 256 int32 words: magic, version, tokens, zeros.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from planner.errors import DataError
from planner.files import open_ordinary
from reference_trainer.data.corpus.file_tokens import FileTokens, OpenFile

Array = npt.NDArray[np.uint8] | npt.NDArray[np.uint16] | npt.NDArray[np.uint32]

HEADER_BYTES = 1024
HEADER_WORD = np.dtype("<i4")
# magic: version and type of the tokens; the first is made for GPT-2's vocabulary, the second for Llama 3's
SHARD_MAGICS = {20240520: (1, "<u2"), 20240801: (7, "<u4")}
MAX_SHARD_TOKENS = 2**31 - 1  # the count is an int32


@dataclass(frozen=True, slots=True)
class TokenFile:
    """One file: offset, number and dtype of its tokens, and whether it has a header."""

    path: Path
    dtype: str
    offset: int
    count: int
    has_header: bool

    def tokens(self) -> FileTokens:
        """The tokens [count], read when they are sliced. Raises OSError if the file cannot be opened."""
        return FileTokens(OpenFile(self.path), np.dtype(self.dtype), self.offset, self.count)


def token_file(path: Path) -> TokenFile:
    """The contents that the file at `path` states, checked against its size.

    Raises DataError for a damaged header, a wrong or odd size; OSError if it is unreadable.
    """
    size = path.stat().st_size
    with open_ordinary(path) as file:
        start = file.read(HEADER_BYTES)
    words = np.frombuffer(start[: len(start) // 4 * 4], HEADER_WORD).tolist()
    if words and words[0] in SHARD_MAGICS:
        return _shard(path, size, words)
    if size % 2:
        raise DataError(
            f"{str(path)!r} has an odd size, {size} bytes",
            why="a .bin is a row of two-byte tokens (uint16, little-endian, no header): this one is cut short",
            remedy="write it again, or give the text itself",
        )
    if _looks_like_header(words, size):
        known = " or ".join(str(magic) for magic in SHARD_MAGICS)
        raise DataError(
            f"{str(path)!r} has the header of a shard but not its magic number",
            why=f"its first word is {words[0]}, not {known}, and the rest of the header fits the file",
            remedy="write it again: its first bytes are damaged",
        )
    return TokenFile(path, "<u2", 0, size // 2, has_header=False)


def _shard(path: Path, size: int, words: list[int]) -> TokenFile:
    version, dtype = SHARD_MAGICS[words[0]]
    if len(words) < HEADER_BYTES // HEADER_WORD.itemsize:
        raise _damaged(path, f"it ends at byte {size}, inside its header of {HEADER_BYTES} bytes")
    if words[1] != version:
        raise DataError(
            f"{str(path)!r} is a shard of version {words[1]}",
            why=f"of magic {words[0]} version {version} is known",
            remedy="write it again, such as with gptplan data",
        )
    itemsize = np.dtype(dtype).itemsize
    wanted = HEADER_BYTES + words[2] * itemsize
    if words[2] < 0 or size != wanted:
        raise _damaged(path, f"its header says {words[2]} tokens, {wanted} bytes in all; the file has {size} bytes")
    return TokenFile(path, dtype, HEADER_BYTES, words[2], has_header=True)


def _damaged(path: Path, why: str) -> DataError:
    return DataError(f"{str(path)!r} is damaged", why=why, remedy="write or copy it again")


def _looks_like_header(words: list[int], size: int) -> bool:
    """A small version, a count that fits the size, then only zeros: tokens never look like this."""
    if len(words) < HEADER_BYTES // HEADER_WORD.itemsize or any(words[3:]) or not 0 < words[1] < 16:
        return False
    return any(size == HEADER_BYTES + words[2] * itemsize for itemsize in (2, 4))


def header(count: int, dtype: str) -> bytes:
    """The 1024 bytes before `count` tokens."""
    assert 0 <= count <= MAX_SHARD_TOKENS
    words = np.zeros(HEADER_BYTES // HEADER_WORD.itemsize, HEADER_WORD)
    magic = next(magic for magic, (_, kind) in SHARD_MAGICS.items() if kind == dtype)
    words[:3] = magic, SHARD_MAGICS[magic][0], count
    return words.tobytes()
