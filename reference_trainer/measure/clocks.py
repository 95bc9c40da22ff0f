"""How long a call takes: on a processor by its clock; on a GPU by its own queue, apart from the host's launches.

A step launches kernels faster than the GPU runs them, so a kernel's time is that of the GPU. Timed one by one, small
kernels would show the host's launch instead (10 us on an H200, where the kernel takes 2), and a sum of them would count
the launches that a step hides. Here the queue is paused first, the calls are put behind the pause, and the GPU's own
events stand around them: they run back to back, however slow the host is.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Protocol

import torch

from reference_trainer.measure.kernel_pool import KernelCall

TRIAL_CYCLES = 1_000_000  # of the pause whose seconds are measured first
FIRST_MARGIN = 2.0  # a pause is this many times the seconds that the host needs to launch what waits behind it
SHORTEST_PAUSE = 1e-4  # s
PAUSES = 4  # each twice as long as the last, until the host is done before the pause ends


class DeviceClock(Protocol):
    """Times calls on one device."""

    def seconds(self, call: KernelCall, calls: int) -> float:
        """Seconds of one call, from `calls` of them back to back."""
        ...

    def host_seconds(self, call: KernelCall, calls: int) -> float:
        """Seconds that the host needs for one call, whatever the device does afterwards."""
        ...


class CpuClock:
    """A processor runs the call where it is made: both times are the same."""

    def seconds(self, call: KernelCall, calls: int) -> float:
        """As in `DeviceClock`."""
        begin = time.perf_counter()
        for _ in range(calls):
            call()
        return (time.perf_counter() - begin) / calls

    host_seconds = seconds


class CudaClock:
    """A GPU's queue. `cuda` is torch.cuda, `host` the host's clock in seconds: a test simulates both."""

    def __init__(self, device: torch.device, cuda: Any = torch.cuda, host: Callable[[], float] = time.perf_counter):
        self.device, self.cuda, self.host = device, cuda, host
        self.cycles_per_second = TRIAL_CYCLES / max(self._paused(TRIAL_CYCLES), 1e-9)

    def seconds(self, call: KernelCall, calls: int) -> float:
        """Seconds of one call on the GPU alone, as in `DeviceClock`.

        A call that waits for the GPU itself can hide no launch: its time is then taken without a pause.
        """
        pause = SHORTEST_PAUSE + FIRST_MARGIN * calls * self.host_seconds(call, 1)
        for _ in range(PAUSES):
            found, hidden = self._behind(pause, call, calls)
            if hidden:
                return found
            pause *= 2
        return self._behind(0.0, call, calls)[0]

    def host_seconds(self, call: KernelCall, calls: int) -> float:
        """Seconds of the host for one call, while the queue is empty enough to take it."""
        self.cuda.synchronize(self.device)
        begin = self.host()
        for _ in range(calls):
            call()
        taken = (self.host() - begin) / calls
        self.cuda.synchronize(self.device)
        return taken

    def _behind(self, pause: float, call: KernelCall, calls: int) -> tuple[float, bool]:
        """Seconds of one call behind a pause, and whether the host was done before the pause ended."""
        start, end = self._event(), self._event()
        self.cuda.synchronize(self.device)
        if pause:
            self.cuda._sleep(int(pause * self.cycles_per_second))
        start.record()
        for _ in range(calls):
            call()
        end.record()
        hidden = not start.query()  # the event stands behind the pause
        end.synchronize()
        return float(start.elapsed_time(end)) / 1e3 / calls, hidden

    def _paused(self, cycles: int) -> float:
        start, end = self._event(), self._event()
        self.cuda._sleep(1)  # its first call loads the kernel
        self.cuda.synchronize(self.device)
        start.record()
        self.cuda._sleep(cycles)
        end.record()
        end.synchronize()
        return float(start.elapsed_time(end)) / 1e3

    def _event(self) -> Any:
        return self.cuda.Event(enable_timing=True)


def clock_of(device: torch.device) -> DeviceClock:
    """The clock of a device."""
    return CudaClock(device) if device.type == "cuda" else CpuClock()
