"""Prefetches micro-batches: a thread makes the next one while a GPU computes; a CPU makes each when it is needed.

The samples of a micro-batch are a pure function of its step. A batch that was made for a step that a rollback cancels
is not used.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

import torch

from reference_trainer.data.samples import MicroBatch
from reference_trainer.device.cuda_setup import thread_initializer

_Position = tuple[int, int]  # step, micro-batch


class Prefetcher:
    """`take` returns a micro-batch on the device; `waited` returns the time spent in `take` since its last call."""

    def __init__(self, make: Callable[[int, int], MicroBatch], accumulation: int, device: torch.device) -> None:
        """make: makes the micro-batch of (step, number) on the host."""
        self._make, self._accumulation, self._device = make, accumulation, device
        self._ahead: tuple[_Position, Future[MicroBatch]] | None = None
        self._thread = ThreadPoolExecutor(1, "prefetch", thread_initializer(device)) if device.type == "cuda" else None
        self._waited = 0.0

    def take(self, step: int, micro: int) -> MicroBatch:
        """One micro-batch, on the device."""
        begin = time.perf_counter()
        if self._thread is None:
            found = self._make(step, micro)
        else:
            place, made = self._ahead or ((0, 0), None)
            found = made.result() if made is not None and place == (step, micro) else self._pinned(step, micro)
            after = (step, micro + 1) if micro + 1 < self._accumulation else (step + 1, 0)
            self._ahead = after, self._thread.submit(self._pinned, *after)
        self._waited += time.perf_counter() - begin
        if self._thread is None:
            return found
        return _copied(found, self._device)

    def _pinned(self, step: int, micro: int) -> MicroBatch:
        return pinned(self._make(step, micro))

    def waited(self) -> float:
        """Seconds spent waiting since the last call."""
        seconds, self._waited = self._waited, 0.0
        return seconds

    def close(self) -> None:
        """End the thread."""
        if self._thread is not None:
            self._thread.shutdown(cancel_futures=True)


def on_device(batch: MicroBatch, device: torch.device) -> MicroBatch:
    """A micro-batch of the host on the device. On a GPU neither waits for the other."""
    return _copied(pinned(batch), device) if device.type == "cuda" else batch.moved(lambda t: t.to(device))


def pinned(batch: MicroBatch) -> MicroBatch:
    """The micro-batch in memory that the system does not move: from there a GPU copies by itself."""
    return batch.moved(lambda t: t.pin_memory())


def _copied(batch: MicroBatch, device: torch.device) -> MicroBatch:
    """The copy from pinned memory does not wait for the kernels already queued."""
    return batch.moved(lambda t: t.to(device, non_blocking=True))
