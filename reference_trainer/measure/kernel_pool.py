"""Operands for timed kernels: views of one pool of random numbers, and a scratch buffer to write to.

So hundreds of sizes need almost no time or memory for set-up.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from reference_trainer.device.dtypes import DTYPES

POOL_ELEMENTS = 1 << 24  # on a processor
TIMED_DTYPES = ("fp32", "bf16")

KernelCall = Callable[[], object]


class TensorPool:
    """Random numbers and a scratch buffer in both dtypes on one device, as views that do not overlap."""

    def __init__(self, device: torch.device, elements: int = POOL_ELEMENTS) -> None:
        self.device, self.elements = device, elements
        wide = torch.empty(elements, device=device).uniform_(-1.0, 1.0)
        self._random = {dtype: wide.to(DTYPES[dtype]) for dtype in TIMED_DTYPES}
        # apart from the random numbers: products written over their own operands would grow until they overflow
        self._scratch = {dtype: torch.empty_like(data) for dtype, data in self._random.items()}
        self._used = {"random": 0, "scratch": 0}

    def reset(self) -> None:
        """Start from the beginning of the pool again."""
        self._used = {"random": 0, "scratch": 0}

    def random(self, dtype: str, *shape: int) -> Tensor:
        """Random numbers in (-1, 1), read-only; a new tensor if the pool is exhausted."""
        start, end = self._claim("random", shape)
        if end > self.elements:
            return torch.empty(shape, device=self.device, dtype=DTYPES[dtype]).uniform_(-1.0, 1.0)
        return self._random[dtype][start:end].view(shape)

    def scratch(self, dtype: str, *shape: int) -> Tensor:
        """A writable tensor of zeros; a new one if the buffer is exhausted."""
        start, end = self._claim("scratch", shape)
        if end > self.elements:
            return torch.zeros(shape, device=self.device, dtype=DTYPES[dtype])
        return self._scratch[dtype][start:end].view(shape).zero_()

    def _claim(self, what: str, shape: tuple[int, ...]) -> tuple[int, int]:
        start = self._used[what]
        self._used[what] += torch.Size(shape).numel()
        return start, self._used[what]


@dataclass(frozen=True, slots=True)
class Kernel:
    """A kernel: how to prepare one call, its sizes from small to large, and its dtypes.

    `divide_by`: how often one call repeats the kernel; the time is divided by it. `on_host`: the time is that of the
    host alone, where the device is another.
    """

    prepare: Callable[[TensorPool, str, tuple[int, ...]], KernelCall]
    sizes: tuple[tuple[int, ...], ...]
    dtypes: tuple[str, ...] = ("fp32",)
    divide_by: int = 1
    on_host: bool = False
