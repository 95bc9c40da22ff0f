"""The answer in six lines: does it fit, how fast, how long, how dear, where the peak is, how many steps."""

from __future__ import annotations

from textual.content import Content
from textual.reactive import reactive
from textual.widgets import Static

from planner.plan import Plan
from planner.units import format_bytes, format_count_exact, format_duration, format_money, format_rate
from tui.session import Result

LABEL = 9
VERDICTS = {True: ("✓ fits", "$success"), False: ("✗ does not fit", "$error"), None: ("? unknown", "$warning")}


def headline(plan: Plan) -> list[tuple[str, str]]:
    """Labels and values; the verdict is on its own, as it has a colour."""
    t, time, c, m = plan.throughput, plan.time, plan.cost, plan.memory
    peak = m.peak_requested_bytes if m.peak_allocated_bytes is None else m.peak_allocated_bytes
    return [
        ("speed", _between(format_rate(t.tokens_per_second), t.tokens_per_second_low, t.tokens_per_second_high)),
        ("time", _span(*(format_duration(s) for s in (time.seconds, time.seconds_low, time.seconds_high)))),
        ("cost", _span(*(format_money(usd) for usd in (c.usd, c.usd_low, c.usd_high)))),
        ("peak", f"{format_bytes(peak)} of {format_bytes(m.usable_bytes)}, in {m.peak_phase}"),
        ("steps", f"{format_count_exact(plan.batch.steps)} of {format_count_exact(plan.batch.tokens_per_step)} tokens"),
    ]


def _between(middle: str, low: float | None, high: float | None) -> str:
    """A rate with its interval; the unit stands once, so that the line is short."""
    return _span(middle, format_rate(low, "").rstrip(), format_rate(high, "").rstrip())


def _span(middle: str, low: str, high: str) -> str:
    return middle if low == high else f"{middle}  ({low} … {high})"


class Headline(Static):
    """The last result that could be computed; `stale` when the form has moved on to something that cannot be."""

    result: reactive[Result | None] = reactive(None)
    stale: reactive[bool] = reactive(False)

    def __init__(self) -> None:
        super().__init__(id="headline", markup=False)

    def on_mount(self) -> None:
        self.refresh_lines()

    def watch_result(self) -> None:
        self.refresh_lines()

    def watch_stale(self) -> None:
        self.refresh_lines()

    def refresh_lines(self) -> None:
        """Write the lines anew. Stale is said in words too: dimming is a colour, and some terminals show none."""
        self.set_class(self.stale, "-stale")
        self.border_title = "Last valid result" if self.stale else "Result"
        if self.result is None:
            self.update("? nothing to show yet: mend the form")
            return
        words, colour = VERDICTS[self.result.plan.memory.fits]
        lines = [Content.styled(words, f"bold {colour}")]
        lines += [Content.assemble((f"{label:<{LABEL}}", "dim"), value) for label, value in headline(self.result.plan)]
        self.update(Content("\n").join(lines))
