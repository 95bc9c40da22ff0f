"""What the palette can look for: a change of the plan after which it fits the card. No terminal in here."""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

from planner.analysis.fitting import LARGER, flags_with, largest_change, predicted_peak, what_fits
from planner.inputs.flags import Flags
from planner.units import format_bytes
from tui.session import Seat, result_of


class Fit(NamedTuple):
    """A search: its name and sentence in the palette; `micro_batch`: only that may change."""

    title: str
    sentence: str
    micro_batch: bool


class Found(NamedTuple):
    """What a search found, in words; typed: what to type, None where there is nothing to change."""

    flags: Flags | None
    title: str
    message: str


FITS = (
    Fit("Largest micro-batch that fits", "Same global batch: the micro-batch and its accumulation are typed", True),
    Fit("Smallest change that fits", "Same global batch: what fits at the least cost of time is typed", False),
)


def found_fit(fit: Fit, seat: Seat) -> Found:
    """Search with the simulated allocator, as the findings do."""
    plan = result_of(seat.flags, seat.session, replay=False).plan
    memory, config = plan.memory, plan.config
    if memory.usable_bytes is None:
        return Found(None, "? unknown", f"how much memory of {config.hardware.gpu} is usable is not known")
    capacity = memory.usable_bytes - (memory.context_bytes or 0)
    if fit.micro_batch:
        change = largest_change(config, capacity, partial(predicted_peak, replay=True))
    else:
        change = what_fits(config)
    if change is None:
        return Found(None, "✗ nothing fits", f"not even one sequence at once: {LARGER}")
    left = f"{format_bytes(memory.usable_bytes)} usable, {format_bytes(memory.context_bytes)} of them the context's"
    against = f"predicted peak {format_bytes(change.peak_bytes)} of {left}"
    if not change.flags:
        return Found(None, "✓ nothing to change", against)
    return Found(flags_with(seat.flags, change), "✓ typed; Ctrl+Z takes it back", f"{change.command_line}: {against}")
