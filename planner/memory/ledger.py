"""The bytes alive during a step, by component, and those alive at the peak of every phase.

`eager/graph.py` writes the ledger: a storage allocates when it is made and releases when the last reference to it goes,
as in PyTorch. What lives for whole phases is allocated and released directly.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from planner.memory.kernel_scratch import KernelScratch

# components, in the order in which they are shown
COMPONENTS = (
    "weights",
    "master_weights",
    "gradients",
    "optimizer",
    "activations",
    "logits",
    "temporary",
    "communication",
)


@dataclass(frozen=True, slots=True)
class Peak:
    """The most bytes alive at once in a phase, and their split by component at that moment."""

    phase: str
    peak_bytes: int
    at_peak: dict[str, int]


@dataclass(frozen=True, slots=True)
class LocalMaximum:
    """Bytes alive when they are about to fall, or, with a kernel, when it runs: without its scratch."""

    phase: str
    size: int
    kernel: KernelScratch | None = None


class Ledger:
    """Bytes alive by component, and the peak of every phase.

    events: if given, this list receives every allocation as (key, bytes) and every release as (key, 0), in order: the
    requests that an allocator would see.
    """

    def __init__(self, events: list[tuple[int, int]] | None = None) -> None:
        self.live = dict.fromkeys(COMPONENTS, 0)
        self.max_by_component = dict.fromkeys(COMPONENTS, 0)
        self.total = 0
        self.events = events
        self._phases: list[Peak] = []
        self._phase = "start"
        self._peak = Peak("start", 0, dict(self.live))
        self._rising = False
        self._keys = 0
        self.maxima: list[LocalMaximum] | None = None  # if a list: every local maximum

    @property
    def phases(self) -> list[Peak]:
        """The peaks of all phases so far, including the current one."""
        self._record_peak()
        return [*self._phases, self._peak]

    def _record_peak(self) -> None:
        """Record a peak before the bytes alive fall: once per climb, not at every allocation."""
        if self._rising:
            self._rising = False
            if self.maxima is not None:
                self.maxima.append(LocalMaximum(self._phase, self.total))
            if self.total > self._peak.peak_bytes:
                self._peak = Peak(self._phase, self.total, dict(self.live))

    def phase(self, name: str) -> None:
        """Start the phase `name`."""
        self._record_peak()
        if self._phase != "start":
            self._phases.append(self._peak)
        self._phase = name
        self._peak = Peak(name, self.total, dict(self.live))

    def allocate(self, component: str, size: int) -> int:
        """Add `size` bytes; returns the key of the allocation."""
        live = self.live
        found = live[component] = live[component] + size
        self.total += size
        self._rising = True
        if found > self.max_by_component[component]:
            self.max_by_component[component] = found
        if self.events is not None and size:
            self._keys += 1
            self.events.append((self._keys, size))
        return self._keys

    def release(self, component: str, size: int, key: int = 0) -> None:
        """Remove `size` bytes."""
        if self._rising:
            self._record_peak()
        self.live[component] -= size
        self.total -= size
        if self.events is not None and size:
            self.events.append((key, 0))

    def run_kernel(self, kernel: KernelScratch, sizes: Sequence[int]) -> None:
        """Count scratch of these bytes, alive together and only while `kernel` runs."""
        if self.maxima is not None:
            self.maxima.append(LocalMaximum(self._phase, self.total, kernel))
        scratch = sum(sizes)
        if not scratch:
            return
        found = self.live["temporary"] + scratch
        self.max_by_component["temporary"] = max(found, self.max_by_component["temporary"])
        if self.total + scratch > self._peak.peak_bytes:
            self._peak = Peak(self._phase, self.total + scratch, self.live | {"temporary": found})
        if self.events is not None:
            first = self._keys + 1
            self._keys += len(sizes)
            self.events.extend(enumerate(sizes, first))
            self.events.extend((key, 0) for key in range(first, self._keys + 1))

    def relabel(self, old: str, new: str, size: int) -> None:
        """Count the same bytes under another component."""
        live = self.live
        live[old] -= size
        found = live[new] = live[new] + size
        if found > self.max_by_component[new]:
            self.max_by_component[new] = found

    def repeat(self, before: dict[str, int], times: int) -> None:
        """Apply the change since `before` `times` more times, at once."""
        for sign in (-1, 1):
            for component in COMPONENTS:
                change = (self.live[component] - before[component]) * times
                if change * sign <= 0:
                    continue
                before = before | {component: self.live[component] + change}
                if sign < 0:
                    self.release(component, -change)
                else:
                    self.allocate(component, change)
