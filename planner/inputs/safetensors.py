"""The header of a safetensors file: names, types and shapes of its tensors, read without the weights and without torch.

The file is 8 bytes of length, little-endian, then so much JSON, then the data. What the format forbids is refused:
github.com/huggingface/safetensors, README, "Format". Nothing in the file is run.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from planner.errors import FileError, nearest
from planner.files import open_ordinary
from planner.json_input import parsed_json
from planner.paths import is_folder

LONGEST = 32 << 20  # bytes of JSON: three times the largest index there is; the library takes 100 MB
PREFIX = struct.calcsize("<Q")
BITS = {
    **dict.fromkeys(("F64", "I64", "U64", "C64"), 64),
    **dict.fromkeys(("F32", "I32", "U32"), 32),
    **dict.fromkeys(("F16", "BF16", "I16", "U16"), 16),
    **dict.fromkeys(("I8", "U8", "BOOL", "F8_E5M2", "F8_E4M3", "F8_E8M0"), 8),
    **dict.fromkeys(("F8_E4M3FNUZ", "F8_E5M2FNUZ"), 8),
    **dict.fromkeys(("F6_E2M3", "F6_E3M2"), 6),
    "F4": 4,
}


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """One tensor of a file. begin: the byte of the file that its data begins at."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    begin: int = field(default=0, compare=False)

    @property
    def elements(self) -> int:
        """Numbers in it."""
        return math.prod(self.shape)


def stored_tensors(path: Path) -> tuple[StoredTensor, ...]:
    """The tensors of a .safetensors file, or of all the files that a model.safetensors.index.json names.

    Raises FileError for a path that cannot be read, a file that is cut short or no safetensors file, and for a tensor
    that is in two files.
    """
    if path.name.endswith(".json"):
        found = [t for part in _parts(path) for t in _of_file(path.parent / part)]
        names = {t.name for t in found}
        if len(names) < len(found):
            raise FileError(f"{path}: two of its files hold the same tensor", remedy="download the model again")
        return tuple(found)
    return tuple(_of_file(path))


def _parts(index: Path) -> list[str]:
    """The files that an index names, each beside it."""
    content = _bytes(index, 0, LONGEST + 1)
    if len(content) > LONGEST:
        raise _refusal(index, f"it is larger than {LONGEST:,} bytes", "index")
    values = _json(content, index)
    weights = values.get("weight_map") if isinstance(values, dict) else None
    if not isinstance(weights, dict) or not weights or not all(isinstance(v, str) for v in weights.values()):
        raise _refusal(index, "it has no weight_map of tensors to files", "index")
    parts = sorted(set(weights.values()))
    if any(Path(part).name != part or not part.endswith(".safetensors") for part in parts):
        raise _refusal(index, "its files are to lie beside it and end in .safetensors", "index")
    return parts


def _of_file(path: Path) -> Iterator[StoredTensor]:
    first = _bytes(path, 0, PREFIX)
    if len(first) < PREFIX:
        raise _refusal(path, f"it has {len(first)} bytes, fewer than the {PREFIX} of the header's length")
    (length,) = struct.unpack("<Q", first)
    if length > LONGEST:
        raise _refusal(path, f"its first bytes would be a header of {length:,} bytes")
    text = _bytes(path, PREFIX, length)
    if len(text) < length:
        raise _refusal(path, f"its header of {length:,} bytes is cut short after {len(text):,}")
    header = _json(text, path)
    if not isinstance(header, dict):
        raise _refusal(path, "its header is no JSON object")
    spans = [(_span(entry, name, path), name) for name, entry in header.items() if name != "__metadata__"]
    end = 0
    for (begin, stop), name in sorted(spans):
        if begin != end:
            raise _refusal(path, f"{name!r} begins at byte {begin:,} of the data and not at {end:,}")
        end = stop
    size = path.stat().st_size - PREFIX - length
    if size != end:
        raise _refusal(path, f"its tensors take {end:,} bytes and {size:,} are there")
    for name, entry in header.items():
        if name != "__metadata__":
            begin = PREFIX + length + entry["data_offsets"][0]
            yield StoredTensor(name, entry["dtype"], tuple(entry["shape"]), begin)


def _span(entry: Any, name: str, path: Path) -> tuple[int, int]:
    """First and last byte of one tensor's data, once its entry is found whole."""
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise _refusal(path, f"{name!r} has not just dtype, shape and data_offsets")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in BITS:
        raise _refusal(path, f"{name!r} is of the unknown type {repr(dtype)[:40]}")
    for numbers in (shape, offsets):
        if not isinstance(numbers, list) or not all(type(n) is int and n >= 0 for n in numbers):
            raise _refusal(path, f"shape and data_offsets of {name!r} are no lists of whole numbers")
    if len(offsets) != 2 or 8 * (offsets[1] - offsets[0]) != math.prod(shape) * BITS[dtype]:
        raise _refusal(path, f"{name!r} of shape {shape} and type {dtype} does not take the bytes of its data_offsets")
    return offsets[0], offsets[1]


def _bytes(path: Path, start: int, length: int) -> bytes:
    """So many bytes of a file, fewer at its end."""
    try:
        with open_ordinary(path) as file:
            file.seek(start)
            return file.read(length)
    except FileNotFoundError:
        beside = [p.name for p in path.parent.glob("*.safetensors*")] if is_folder(path.parent) else []
        close = nearest(path.name, beside)
        hint = f"did you mean {' or '.join(close)}? " if close else ""
        raise FileError(f"{path} does not exist", remedy=f"{hint}check the path") from None
    except IsADirectoryError:
        raise FileError(
            f"{path} is a directory",
            why="a file is needed here",
            remedy="name model.safetensors in it, or model.safetensors.index.json",
        ) from None
    except (OSError, ValueError) as error:  # ValueError: a null byte in the name
        why = getattr(error, "strerror", None) or str(error)
        raise FileError(f"{path} cannot be read", why=why, remedy="check it") from None


def _json(text: bytes, path: Path) -> Any:
    try:
        return parsed_json(text)
    except ValueError as error:
        raise _refusal(path, f"its JSON cannot be read: {str(error)[:80]}") from None


def _refusal(path: Path, why: str, kind: str = "file") -> FileError:
    return FileError(f"{path} is no whole safetensors {kind}", why=why, remedy="download it again, or name another")
