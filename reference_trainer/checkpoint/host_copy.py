"""Host memory for the tensors of an asynchronous save: one block of exactly their bytes, used again by each save.

For tensors on a GPU it is page-locked with `cudaHostRegister`, so that the copies do not wait for one another.
PyTorch's own pinned memory rounds a block up to a power of two: 84 GB would take 128.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from planner.units import format_bytes
from reference_trainer.checkpoint.checkpoint import Contents

ALIGNMENT = 64  # bytes: of each tensor in the host copy


class HostCopy:
    """The block, allocated at the first copy. `note`: why it is not page-locked, once; None if it is or need not be."""

    def __init__(self) -> None:
        self.note: str | None = None
        self._block = torch.empty(0, dtype=torch.uint8)
        self._locked: int | None = None  # the address that CUDA knows

    def of(self, contents: Contents, flags: Tensor) -> tuple[Contents, Tensor]:
        """Copies of all tensors and of `flags`, complete on return; the copies of the previous call are overwritten.

        Raises RuntimeError where the host has no memory for them.
        """
        flat = [t for tensors in contents.values() for t in tensors.values()] + [flags]
        places = _places(flat)
        if self._block.numel() < places[-1]:
            self.free()
            self._block = torch.empty(places[-1], dtype=torch.uint8)
            if flags.is_cuda:
                self._lock(flags.device)
        copies = [
            self._block[at : at + t.numel() * t.element_size()].view(t.dtype).view(t.shape).copy_(t, non_blocking=True)
            for at, t in zip(places, flat, strict=False)
        ]
        if flags.is_cuda:  # the one wait: until here nothing waited for the device
            torch.cuda.current_stream(flags.device).synchronize()
        rest = iter(copies)
        return {file: {name: next(rest) for name in tensors} for file, tensors in contents.items()}, next(rest)

    def free(self) -> None:
        """Unlock and release the block; nothing may use the copies any more."""
        if self._locked is not None:
            _cudart().cudaHostUnregister(self._locked)
            self._locked = None
        self._block = torch.empty(0, dtype=torch.uint8)

    def _lock(self, device: torch.device) -> None:
        address, size = self._block.data_ptr(), self._block.numel()
        if int(_cudart().cudaHostRegister(address, size, 0)) == 0:
            self._locked = address
            return
        self.note = (
            f"{format_bytes(size)} of host memory could not be page-locked: each save stalls training for longer. "
            "Raise the limit of locked memory (ulimit -l) or free host memory"
        )
        try:  # CUDA keeps the refusal as its last error, which the next kernel would raise: take it here
            torch.ones(1, device=device)
        except RuntimeError as error:
            if "CUDA error" not in str(error):
                raise


def _cudart() -> Any:
    return torch.cuda.cudart()  # type: ignore[no-untyped-call]


def _places(tensors: list[Tensor]) -> list[int]:
    """The aligned offset of each tensor in one block of bytes; the last entry is the block's size."""
    places = [0]
    for t in tensors:
        places.append(places[-1] + math.ceil(t.numel() * t.element_size() / ALIGNMENT) * ALIGNMENT)
    return places
