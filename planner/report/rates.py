"""A learning-rate range test as text for people: the curve and the suggestion."""

from __future__ import annotations

from planner.report.plot import plot
from planner.report.text import WIDTH, Page
from planner.runs.rate_search import BELOW_MINIMUM, SMOOTHING, RateSearch
from planner.units import format_number


def rate_search_text(search: RateSearch, *, width: int, plain: bool) -> str:
    """The smoothed loss over the steps, and the learning rates that follow from it."""
    s, last, page = search, len(search.smoothed) - 1, Page(max(60, min(WIDTH, width)))
    ended = ", ended where the loss exploded" if s.exploded else ""
    title = f"Smoothed loss over {last + 1} steps, {format_number(s.rates[0])} to {format_number(s.rates[-1])}{ended}"
    lines = []
    if last >= 1:
        lines += plot([lambda k: s.smoothed[min(k, last)]], last, width=width, plain=plain)
    marks = sorted({0, last // 4, last // 2, 3 * last // 4, last})
    rows = [("step", "learning rate", "loss", "smoothed")]
    rows += [
        (f"{k + 1}", format_number(s.rates[k]), format_number(s.losses[k]), format_number(s.smoothed[k])) for k in marks
    ]
    lines += ["", *page.table(rows, {0, 1, 2, 3})]
    found = [
        ("lowest smoothed loss at", format_number(s.minimum_rate)),
        ("steepest descent at", format_number(s.steepest_rate)),
        ("suggested --peak-lr", format_number(s.suggested_peak_lr)),
    ]
    lines += ["", *page.table(found, {1})]
    rule = (
        f"The suggestion is the smaller of the steepest rate and 1/{BELOW_MINIMUM:g} of the rate of the lowest loss "
        f"(smoothing {SMOOTHING:g}). Range test of Smith 2015 (arXiv 1506.01186); a short test favours high rates: "
        "take it as a start"
    )
    lines += page.sentence(rule)
    return page.section(title, *lines, *(page.sentence(f"! {s.note}") if s.note else []))
