"""Bytes alive during a step, by component, and what is alive at the peak of every phase.

The ledger is written by `autograd.py`, whose tensors allocate when they are made and free when the last reference
to them goes, as PyTorch's do. A handle without a tensor (`new`, `free`) serves what lives for whole phases.
"""

from __future__ import annotations

from dataclasses import dataclass

# components, in the order in which they are shown
COMPONENTS = ("weights", "master_weights", "gradients", "optimizer", "activations", "logits", "temporary")
Handle = tuple[str, int]


@dataclass(frozen=True, slots=True)
class Peak:
    """The most bytes alive at once in a phase, and the components alive at that moment (they sum to it)."""

    phase: str
    peak_bytes: int
    at_peak: dict[str, int]


class Ledger:
    """Bytes alive by component, and the peak of every phase.

    events: where a list is given, every allocation as (key, bytes) and every release as (key, 0), in order: what an
    allocator would be asked for.
    """

    def __init__(self, events: list[tuple[int, int]] | None = None) -> None:
        self.live = dict.fromkeys(COMPONENTS, 0)
        self.largest = dict.fromkeys(COMPONENTS, 0)
        self.total = 0
        self.events = events
        self._phases: list[Peak] = []
        self._phase = "start"
        self._peak = Peak("start", 0, dict(self.live))
        self._rising = False
        self._keys = 0

    @property
    def phases(self) -> list[Peak]:
        """Peaks of the phases so far, the running one included."""
        self._note()
        return [*self._phases, self._peak]

    def _note(self) -> None:
        """A peak is noted when the bytes alive are about to fall: once per climb, not at every allocation."""
        if self._rising:
            self._rising = False
            if self.total > self._peak.peak_bytes:
                self._peak = Peak(self._phase, self.total, dict(self.live))

    def phase(self, name: str) -> None:
        """From here on peaks belong to `name`."""
        self._note()
        if self._phase != "start":
            self._phases.append(self._peak)
        self._phase = name
        self._peak = Peak(name, self.total, dict(self.live))

    def allocate(self, component: str, size: int) -> int:
        """`size` bytes more; the key of the allocation."""
        live = self.live
        found = live[component] = live[component] + size
        self.total += size
        self._rising = True
        if found > self.largest[component]:
            self.largest[component] = found
        if self.events is not None and size:
            self._keys += 1
            self.events.append((self._keys, size))
        return self._keys

    def release(self, component: str, size: int, key: int = 0) -> None:
        """`size` bytes less."""
        if self._rising:
            self._note()
        self.live[component] -= size
        self.total -= size
        if self.events is not None and size:
            self.events.append((key, 0))

    def relabel(self, old: str, new: str, size: int) -> None:
        """The same bytes under another component."""
        live = self.live
        live[old] -= size
        found = live[new] = live[new] + size
        if found > self.largest[new]:
            self.largest[new] = found

    def repeat(self, before: dict[str, int], times: int) -> None:
        """Apply `times` more the change since `before`, in one go."""
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
