"""One optimizer step as a tape of allocations: which bytes live when, and what is alive at the peak of a phase.

The tape walks the reference model operator by operator, forward and backward, in the order in which eager
PyTorch allocates and frees. All blocks are alike, so the first and the last are walked and those between are
added at once: every total is linear in the block's number, hence its maximum is at an end. Witness: the replay
of the real step on fake tensors (`reference_trainer/trace.py`), peak by peak.
"""

from __future__ import annotations

from dataclasses import dataclass

# components, in the order in which they are shown
COMPONENTS = ("weights", "master_weights", "gradients", "optimizer", "activations", "logits", "temporary")
Handle = tuple[str, int]


@dataclass(frozen=True, slots=True)
class Peak:
    """The most bytes alive at once in a phase, and how they divide among the components."""

    phase: str
    bytes: int
    components: dict[str, int]


class Ledger:
    """Bytes alive by component, and the peak of every phase."""

    def __init__(self) -> None:
        self.live = dict.fromkeys(COMPONENTS, 0)
        self.total = 0
        self.phases: list[Peak] = []
        self.largest = dict.fromkeys(COMPONENTS, 0)

    def phase(self, name: str) -> None:
        """From here on peaks belong to `name`."""
        self.phases.append(Peak(name, self.total, dict(self.live)))

    def new(self, component: str, size: int) -> Handle:
        """Allocate; the handle frees it."""
        live = self.live
        live[component] += size
        self.total += size
        if live[component] > self.largest[component]:
            self.largest[component] = live[component]
        if self.total > self.phases[-1].bytes:
            self.phases[-1] = Peak(self.phases[-1].phase, self.total, dict(live))
        return component, size

    def free(self, *handles: Handle | None) -> None:
        """Free what was allocated; None (nothing was) is allowed."""
        for handle in handles:
            if handle is not None:
                self.live[handle[0]] -= handle[1]
                self.total -= handle[1]

    def move(self, handle: Handle, component: str) -> Handle:
        """The same bytes under another component: a result becomes a saved tensor, or the reverse."""
        self.live[handle[0]] -= handle[1]
        self.live[component] += handle[1]
        self.largest[component] = max(self.largest[component], self.live[component])
        return component, handle[1]

    def repeat(self, before: dict[str, int], times: int) -> None:
        """Apply `times` more the change since `before`, in one go."""
        change = {c: self.live[c] - before[c] for c in COMPONENTS}
        for component, size in change.items():
            if size < 0:
                self.free((component, -size * times))
        for component, size in change.items():
            if size > 0:
                self.new(component, size * times)
