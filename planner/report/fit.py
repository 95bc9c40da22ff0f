"""What fits, as text and as one JSON object."""

from __future__ import annotations

from dataclasses import dataclass

from planner.analysis.largest import Fit, LargestThatFits
from planner.report.text import WIDTH, Page, sections_text
from planner.units import format_bytes, format_count, told_apart
from planner.units import format_count_exact as spell


@dataclass(frozen=True, slots=True)
class FitDocument:
    """What `gptplan fit --json` prints, in base units. change_flags: null: no change fits; []: none is needed.

    change_time_ratio: a step's time over that of the plan as it is.
    """

    fits_as_it_is: bool
    needed_bytes: int
    usable_bytes: int
    change_flags: tuple[str, ...] | None
    change_time_ratio: float | None
    largest: tuple[LargestThatFits, ...]


def fit_document(fit: Fit) -> FitDocument:
    """The result as plain numbers."""
    change = fit.change
    flags, ratio = (None, None) if change is None else (change.flags, change.time_ratio)
    return FitDocument(fit.fits_as_it_is, fit.needed_bytes, fit.usable_bytes, flags, ratio, fit.largest)


def fit_text(fit: Fit, width: int = WIDTH) -> str:
    """Whether it fits, the cheapest change, and the largest of each quantity."""
    page = Page(width)
    needs = " of ".join(told_apart(format_bytes, fit.needed_bytes, fit.usable_bytes))
    verdict = "✓ fits" if fit.fits_as_it_is else "✗ does not fit"
    rows = [("quantity", "now", "largest", "limited by", "parameters", "flags")]
    rows += [
        (
            one.quantity,
            spell(one.now),
            "none fits" if one.largest is None else spell(one.largest),
            one.by,
            format_count(one.parameters),
            one.flags,
        )
        for one in fit.largest
    ]
    return sections_text(
        page.section("This plan", page.line("memory", needs, verdict), *_change(page, fit)),
        page.section("Largest that fits, everything else as it is", *page.table(rows, {1, 2, 4})),
    )


def _change(page: Page, fit: Fit) -> list[str]:
    if fit.fits_as_it_is:
        return []
    if fit.change is None:
        return [page.line("cheapest change", "none fits", "more or larger GPUs: gptplan search --gpus 8..1024")]
    if not fit.change.flags:
        return [page.line("cheapest change", "none", "it fits if the allocator frees unused segments and tries again")]
    return [page.line("cheapest change", fit.change.command_line, fit.change.price)]
