"""The tensors of a .safetensors file, read into memory of their own.

The library maps the file: one that is cut short afterwards kills the process (SIGBUS) wherever such a tensor is used.
A read says how much it got. Nothing in the file is run.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor

from planner.errors import CheckpointError, FileError
from planner.files import open_ordinary
from planner.inputs.safetensors import StoredTensor, stored_tensors

_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}  # by their names in the format


class TensorFile(Mapping[str, Tensor]):
    """Tensors by name, on the CPU; each is read when it is asked for, so that one at a time is in memory.

    remedy: what the messages propose. Raises CheckpointError, also when a tensor is read, for a file that cannot be
    read, is damaged, or has become shorter.
    """

    def __init__(self, path: Path, remedy: str = "") -> None:
        self.path, self.remedy = path, remedy
        try:
            self._stored = {tensor.name: tensor for tensor in stored_tensors(path)}
        except FileError as error:
            raise self._refusal(f"{error.what}: {error.why}" if error.why else error.what) from error
        unknown = sorted({tensor.dtype for tensor in self._stored.values()} - set(_DTYPES))
        if unknown:
            raise self._refusal(f"it has tensors of the type {unknown[0]}, which PyTorch has not")

    def __iter__(self) -> Iterator[str]:
        return iter(self._stored)

    def __len__(self) -> int:
        return len(self._stored)

    def __contains__(self, name: object) -> bool:
        return name in self._stored  # the one of Mapping would read the tensor

    def kind(self, name: str) -> tuple[torch.Size, torch.dtype]:
        """Shape and type of a tensor, which is not read."""
        stored = self._stored[name]
        return torch.Size(stored.shape), _DTYPES[stored.dtype]

    def __getitem__(self, name: str) -> Tensor:
        stored = self._stored[name]
        tensor = torch.empty(stored.shape, dtype=_DTYPES[stored.dtype])
        if tensor.numel():
            self._read_into(tensor.view(-1).view(torch.uint8).numpy().data, stored)
        return tensor

    def rows(self, name: str, begin: int, end: int) -> Tensor:
        """The rows from `begin` up to `end` of a tensor that has dimensions; nothing else is read."""
        stored = self._stored[name]
        tensor = torch.empty((end - begin, *stored.shape[1:]), dtype=_DTYPES[stored.dtype])
        if tensor.numel():
            skipped = begin * (tensor[0].numel() * tensor.element_size())
            self._read_into(tensor.view(-1).view(torch.uint8).numpy().data, stored, skipped)
        return tensor

    def _read_into(self, room: memoryview, stored: StoredTensor, skipped: int = 0) -> None:
        """Fill `room` with the bytes of a tensor, without its first `skipped`."""
        done = 0
        try:
            with open_ordinary(self.path) as file:
                file.seek(stored.begin + skipped)
                while done < len(room):
                    read = file.readinto(room[done:])
                    if not read:
                        raise self._refusal(f"it has been cut short: {stored.name} ends after {done:,} bytes")
                    done += read
        except OSError as error:
            raise self._refusal(error.strerror or str(error)) from error

    def _refusal(self, why: str) -> CheckpointError:
        return CheckpointError(f"{self.path} cannot be read", why=why, remedy=self.remedy)
