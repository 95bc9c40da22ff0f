"""The searches of the palette: a change of the plan after which it fits the GPU. No terminal in here."""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

from planner.analysis.changes import flags_with
from planner.analysis.fitting import LARGER, largest_change, predicted_peak, what_fits
from planner.inputs.flags import Flags
from planner.units import format_bytes
from tui.session import FormState, flags_result


class FitSearch(NamedTuple):
    """A search: its title and sentence in the palette; micro_batch: only the micro-batch may change."""

    title: str
    sentence: str
    micro_batch: bool


class FitResult(NamedTuple):
    """The result of a search as a message; flags: the changed form, None where nothing changes."""

    flags: Flags | None
    title: str
    message: str


FIT_SEARCHES = (
    FitSearch("Largest micro-batch that fits", "Same global batch: fills in the micro-batch and accumulation", True),
    FitSearch("Smallest change that fits", "Same global batch: fills in what fits and costs the least time", False),
)


def search_fit(fit: FitSearch, form_state: FormState) -> FitResult:
    """Search with the simulated allocator, as the findings do."""
    plan = flags_result(form_state.flags, form_state.session, replay=False).plan
    memory = plan.memory
    if memory.usable_bytes is None:
        return FitResult(None, "? unknown", f"the usable memory of {plan.config.hardware.gpu} is not known")
    capacity = memory.usable_bytes - memory.outside_bytes
    if fit.micro_batch:
        change = largest_change(plan.run, capacity, partial(predicted_peak, replay=True))
    else:
        change = what_fits(plan.run)
    if change is None:
        return FitResult(None, "✗ nothing fits", f"not even a micro-batch of one sequence: {LARGER}")
    usable, context = format_bytes(memory.usable_bytes), format_bytes(memory.outside_bytes)
    nccl = " and NCCL" if memory.nccl_bytes.value else ""
    against = (
        f"predicted peak {format_bytes(change.peak_bytes)} of {usable} usable ({context} for the CUDA context{nccl})"
    )
    if not change.flags:
        return FitResult(None, "✓ nothing to change", against)
    return FitResult(
        flags_with(form_state.flags, change), "✓ filled in; Ctrl+Z undoes it", f"{change.command_line}: {against}"
    )
