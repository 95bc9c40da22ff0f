"""Schedule: the learning rate over steps and tokens, with a cursor."""

from __future__ import annotations

from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.reactive import var

from planner.analysis.schedules import curve_of, sampled_steps
from planner.report.schedule import cursor_plot, curve_title, key_step_lines, reading
from planner.report.text import wrap
from tui.panes.pane import Pane
from tui.session import View
from tui.widgets.text import Text

STOPS = 200  # of the cursor, besides the key steps
LOWEST, HIGHEST = 4, 20  # rows of the plot


class SchedulePane(Pane):
    """← and → move the cursor, with Shift ten times as far, Home and End to the ends."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("left", "move(-1)", "Earlier"),
        Binding("right", "move(1)", "Later"),
        Binding("shift+left", "move(-10)", "Much earlier", show=False),
        Binding("shift+right", "move(10)", "Much later", show=False),
        Binding("home", "move(-100000)", "Begin", show=False),
        Binding("end", "move(100000)", "End", show=False),
    ]
    stop: var[int] = var(STOPS // 4, init=False)

    def compose(self) -> ComposeResult:
        yield Text(id="reading")
        yield Text(id="plot")
        yield Text(id="landmarks")

    def watch_stop(self) -> None:
        """Draw the cursor where it is now."""
        self.watch_view(self.view)

    def action_move(self, by: int) -> None:
        """Move the cursor by so many stops, to the end at most."""
        if self.view is not None:
            stops = sampled_steps([curve_of(self.view.result.plan.config)], STOPS)
            self.stop = min(len(stops) - 1, max(0, self.stop + by))

    def show(self, view: View) -> None:
        """Draw in the available width."""
        curve = curve_of(view.result.plan.config)
        stops = sampled_steps([curve], STOPS)
        step = stops[min(self.stop, len(stops) - 1)]
        room = self.room(40)
        read = wrap(reading(curve, step), indent=0, width=room)
        height = min(HIGHEST, max(LOWEST, self.size.height - len(read) - 3))  # two lines of axis, one of tokens
        self.query_one("#reading", Text).put("\n".join(read))
        self.query_one("#plot", Text).put("\n".join(cursor_plot(curve, step, width=room, height=height)))
        lines = ["", *wrap(curve_title(curve), indent=0, width=room), *key_step_lines(curve)]
        self.query_one("#landmarks", Text).put("\n".join(lines))
