"""Compare: predicted and measured numbers of a finished run, and its post-mortem."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from textual import on, work
from textual.app import ComposeResult
from textual.containers import ScrollableContainer, Vertical
from textual.content import Content
from textual.widgets import Input, OptionList
from textual.widgets.option_list import Option
from textual.worker import get_current_worker

from planner.errors import PlanError
from planner.files import read_text
from planner.paths import is_file
from planner.printable import printable
from planner.report.comparison import comparison_within
from planner.report.text import wrap
from planner.runs.comparison_file import load_comparison
from planner.runs.directory import COMPARISON, POST_MORTEM
from tui.files import file_named
from tui.panes.pane import Pane
from tui.session import View
from tui.watched import known_runs
from tui.widgets.text import Text

_NARROWEST = 30
_HELP = """\
Compare shows a finished run: every number predicted before the run, with its measurement.

✓ within its tolerance  ✗ outside  ? not measured here, or not predicted

Type a run directory, or choose a run below this directory or one watched before.
The post-mortem stands below the table.
The same by command: gptplan compare RUN_DIR; gptplan postmortem RUN_DIR."""


class ComparePane(Pane, can_focus=False):
    """A line for a directory, the list of finished runs, the comparison."""

    HELP: ClassVar[str] = _HELP

    def __init__(self, *, id: str) -> None:
        super().__init__(id=id)
        self._chosen: Path | None = None

    def compose(self) -> ComposeResult:
        with Vertical(id="compare-list"):
            yield Input(id="compare-path", placeholder="a finished run's directory; or choose below", compact=True)
            yield OptionList(id="compare-runs", markup=False, compact=True)
        with ScrollableContainer(id="comparison"):
            yield Text("… looking for finished runs", id="compared")

    def watch_view(self, view: View | None) -> None:
        """List the finished runs again; the form changes nothing here."""
        if view is not None:
            self._find()

    def on_show(self) -> None:
        self._find()  # a run may have finished meanwhile

    @work(thread=True, exclusive=True, group="find")
    def _find(self) -> None:
        found = [run for run in known_runs() if is_file(run / COMPARISON)]
        if not get_current_worker().is_cancelled:
            self.app.call_from_thread(self._found, found)

    def _found(self, found: list[Path]) -> None:
        place = self.query_one("#compare-runs", OptionList)
        names = [str(run) for run in found]
        if names != [option.id for option in place.options]:
            with self.prevent(OptionList.OptionHighlighted):
                place.clear_options()
                place.add_options(Option(printable(name), id=name) for name in names)
        self._chosen = self._chosen or (found[0] if found else None)
        if self._chosen is None:
            self.query_one("#compared", Text).put("No finished run below this directory: train one on the tab Run.")
        elif self._width() >= _NARROWEST:  # else the layout comes in a moment
            self._read(self._chosen, self._width())

    def _width(self) -> int:
        return self.query_one("#comparison").size.width - 2

    @on(Input.Submitted, "#compare-path")
    def _typed(self, event: Input.Submitted) -> None:
        event.stop()
        if event.value.strip():
            try:
                self._choose(file_named(event.value.strip()))
            except PlanError as error:
                self.query_one("#compared", Text).put(f"✗ {error.message()}")

    @on(OptionList.OptionHighlighted, "#compare-runs")
    def _picked(self, event: OptionList.OptionHighlighted) -> None:
        event.stop()
        if event.option_id is not None:
            self._choose(Path(event.option_id))

    def _choose(self, directory: Path) -> None:
        self._chosen = directory
        self._read(directory, self._width())

    @work(thread=True, exclusive=True, group="comparison")
    def _read(self, directory: Path, width: int) -> None:
        text = compared(directory, width)
        if not get_current_worker().is_cancelled:
            self.app.call_from_thread(self._show_comparison, str(directory), text)

    def _show_comparison(self, name: str, text: str) -> None:
        self.query_one("#comparison").border_title = Content(printable(name))
        self.query_one("#compared", Text).put(text)


def compared(directory: Path, width: int) -> str:
    """The comparison of a run and its post-mortem, or the message why there is none."""
    try:
        table = comparison_within(load_comparison(directory), width)
    except PlanError as error:
        return f"✗ {error.message()}"
    try:
        return f"{table}\n\n{_wrapped(read_text(directory / POST_MORTEM), width)}"
    except PlanError as error:
        return f"{table}\n\n{error.message()}"


def _wrapped(text: str, width: int) -> str:
    """Lines that are too long, wrapped."""
    parts: list[str] = []
    for line in text.splitlines():
        parts += [line] if len(line) <= width else wrap(line, indent=0, width=width)
    return "\n".join(parts)
