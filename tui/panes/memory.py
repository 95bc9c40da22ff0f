"""Memory: a stacked bar for every phase, a letter per component, and the numbers."""

from __future__ import annotations

from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.content import Content
from textual.reactive import var

from planner.report.memory_bars import COMPONENT_SIGNS, NAMES, Bar, Bars, component_table, memory_bars
from tui.panes.pane import Pane
from tui.session import View
from tui.widgets.text import Text

# told apart with every kind of colour vision (Okabe and Ito 2008, jfly.uni-koeln.de/color); the letters say the same
COLOURS = {
    "weights": "#0072b2",
    "master_weights": "#56b4e9",
    "gradients": "#e69f00",
    "optimizer": "#cc79a7",
    "activations": "#009e73",
    "logits": "#d55e00",
    "temporary": "#f0e442",
    "communication": "#a6761d",
    "allocator": "#999999",
    "context": "#bbbbbb",
    "nccl": "#dddddd",
}
NAME = 22  # columns of a phase's name, where it stands beside its bar
SIZE = 18  # of its bytes
BESIDE = 80  # from so many columns on; else name and bytes stand above the bar


class MemoryPane(Pane):
    """Bars on the scale of the device's memory, or of the highest bar."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("z", "toggle_scale", "Zoom bars")]
    zoomed: var[bool] = var(False, init=False)

    def compose(self) -> ComposeResult:
        yield Text(id="bars")

    def watch_zoomed(self) -> None:
        """Draw on the other scale."""
        self.watch_view(self.view)

    def action_toggle_scale(self) -> None:
        """Switch between the scale of the device's memory and that of the highest bar."""
        self.zoomed = not self.zoomed

    def show(self, view: View) -> None:
        """Draw the bars in the available width."""
        room = self.room()
        beside = room >= BESIDE
        width = room - 2 - (NAME + SIZE if beside else 0)
        bars = memory_bars(view.result.plan, width, near=self.zoomed)
        lines: list[Content] = []
        for row in bars.rows:
            bar = _bar(row, bars, width)
            if beside:
                lines.append(Content.assemble(f"{row.name:<{NAME}}", bar, f" {row.size()}"))
            else:
                lines += [Content(f"{row.name}  {row.size()}"), bar]
        scale = "z: scale to the device's memory" if self.zoomed else "z: scale to the highest bar"
        waiting = Content("" if view.result.settled else "… simulating the allocator")
        legend = _legend(bars, room)
        table = [Content(line) for line in component_table(view.result.plan)]
        text = [*lines, waiting, *legend, Content(bars.note), Content(scale), Content(""), *table]
        self.query_one("#bars", Text).put(Content("\n").join(text))


def _bar(row: Bar, bars: Bars, width: int) -> Content:
    """The letters of a row, and the capacity's line where it is in sight."""
    letters = "".join(COMPONENT_SIGNS[name] * count for name, count in row.cells).ljust(width + 1)
    styles = [COLOURS[name] for name, count in row.cells for _ in range(count)]
    styles += [""] * (width + 1 - len(styles))
    if bars.capacity is not None:
        letters = letters[: bars.capacity] + "┃" + letters[bars.capacity + 1 :]
        styles[bars.capacity] = ""
    pieces: list[str | tuple[str, str]] = []
    start = 0
    for i in range(1, width + 2):
        if i == width + 1 or styles[i] != styles[start]:
            piece = letters[start:i]
            pieces.append((piece, f"black on {styles[start]}") if styles[start] else piece)
            start = i
    return Content.assemble(*pieces)


def _legend(bars: Bars, width: int) -> list[Content]:
    """Letter and name of each component that is drawn, in as many lines as it takes."""
    lines, length = [Content("")], 0
    for name in bars.used():
        entry = Content.assemble((f" {COMPONENT_SIGNS[name]} ", f"black on {COLOURS[name]}"), f" {NAMES[name]}   ")
        if length and length + len(entry.plain) > width:
            lines.append(Content(""))
            length = 0
        lines[-1] += entry
        length += len(entry.plain)
    return lines
