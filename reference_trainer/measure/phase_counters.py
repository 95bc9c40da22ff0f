"""Peaks by phase from the CUDA allocator's own counters: what `StorageTracker` is on a CPU.

A dispatch mode would change what is measured: while one is active, autograd adds two gradients of one tensor out of
place (`isTensorSubclassLike` in PyTorch's `InputBuffer`), which on a GPU is one gradient more at the end of backward.
"""

from __future__ import annotations

from types import TracebackType
from typing import Any

import torch

from reference_trainer.measure.replay import PhasePeak, Track

_REQUESTED = "requested_bytes.all"


class PhaseCounters:
    """Reads the requested bytes of `device` at the borders of phases, less those that were there at the start.

    The allocator counts on the host, in the order of the calls, so that no border waits for the device. Workspaces of
    matmuls stay once taken; the ones that the process took before are part of the start and are not counted.
    """

    def __init__(self, device: torch.device) -> None:
        self._device, self._done = device, Track()
        self._start = int(self._counters()[f"{_REQUESTED}.current"])

    @property
    def track(self) -> Track:
        """The phases so far."""
        self._close()
        return self._done

    def phase(self, name: str) -> None:
        """From here on, peaks belong to the phase `name`."""
        self._close()
        torch.cuda.reset_peak_memory_stats(self._device)
        self._done.phases.append(PhasePeak(name, self._done.live_bytes, "start"))

    def add(self, *trees: Any) -> None:
        """Nothing to do: the allocator counts every tensor."""

    def __enter__(self) -> PhaseCounters:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        return None

    def _counters(self) -> dict[str, Any]:
        return torch.cuda.memory_stats(self._device)

    def _close(self) -> None:
        counters = self._counters()
        self._done.live_bytes = int(counters[f"{_REQUESTED}.current"]) - self._start
        if self._done.phases:
            last = self._done.phases[-1]
            last.peak_bytes = max(last.peak_bytes, int(counters[f"{_REQUESTED}.peak"]) - self._start)
