"""The tensors of a checkpoint by name, whether one rank wrote them whole or several wrote rows of them.

    model.safetensors                         whole tensors
    model-00001-of-00004.safetensors, …       the rows of each tensor, in the order of the files; what has no rows (a
                                              count of steps) is in the first

Rows that any number of ranks wrote are read by any other number: a rank asks for those it needs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor

from planner.errors import CheckpointError
from planner.paths import exists
from reference_trainer.checkpoint.tensor_file import TensorFile


def shard_name(name: str, shard: int, shards: int) -> str:
    """The file of one shard: of model.safetensors, 0 and 4, model-00001-of-00004.safetensors; of one shard, `name`."""
    stem, _, ending = name.partition(".")
    return name if shards == 1 else f"{stem}-{shard + 1:05d}-of-{shards:05d}.{ending}"


class StoredTensors(Mapping[str, Tensor]):
    """Whole tensors by name, on the CPU, each read when it is asked for; `rows` reads a part.

    Raises CheckpointError, also when a tensor is read, for files that cannot be read, or do not belong together.
    """

    def __init__(self, folder: Path, name: str, remedy: str = "") -> None:
        """folder: of a verified checkpoint; name: model.safetensors or optimizer.safetensors."""
        self.path, self.remedy = folder / name, remedy
        stem, _, ending = name.partition(".")
        paths = [self.path] if exists(self.path) else sorted(folder.glob(f"{stem}-?????-of-?????.{ending}"))
        self._files = [TensorFile(path, remedy) for path in paths or [self.path]]
        if any(set(file) - set(self._files[0]) for file in self._files[1:]):
            raise self._refusal("its shards are not of one model")

    def _refusal(self, why: str) -> CheckpointError:
        return CheckpointError(f"{self.path} cannot be used", why=why, remedy=self.remedy)

    def __iter__(self) -> Iterator[str]:
        return iter(self._files[0])

    def __len__(self) -> int:
        return len(self._files[0])

    def __contains__(self, name: object) -> bool:
        return name in self._files[0]

    def kind(self, name: str) -> tuple[torch.Size, torch.dtype]:
        """Shape and type of a whole tensor, which is not read."""
        shape, dtype = self._files[0].kind(name)
        if not shape:
            return shape, dtype
        others = [file.kind(name) for file in self._files[1:] if name in file]
        if any((other[1:], kind) != (shape[1:], dtype) for other, kind in others):
            raise self._refusal(f"{name} has other rows in another shard")
        return torch.Size((shape[0] + sum(other[0] for other, _ in others), *shape[1:])), dtype

    def __getitem__(self, name: str) -> Tensor:
        if len(self._files) == 1:
            return self._files[0][name]
        shape, _ = self.kind(name)
        return self.rows(name, 0, shape[0]) if shape else self._files[0][name]

    def rows(self, name: str, begin: int, end: int) -> Tensor:
        """The rows from `begin` up to `end` of a tensor. Files without any of them are not read."""
        shape, dtype = self.kind(name)
        found = torch.empty((end - begin, *shape[1:]), dtype=dtype)
        first = 0
        for file in self._files:
            if name not in file:
                continue
            count = file.kind(name)[0][0]
            low, high = max(begin, first), min(end, first + count)
            if low < high:
                found[low - begin : high - begin] = file.rows(name, low - first, high - first)
            first += count
        return found
