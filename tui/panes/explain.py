"""Explain: every number of the plan in a list; the selected one with its formula, values, unit and source."""

from __future__ import annotations

from textual import on, work
from textual.app import ComposeResult
from textual.containers import ScrollableContainer, Vertical
from textual.widgets import Input, OptionList
from textual.widgets.option_list import Option
from textual.worker import get_current_worker

from planner.analysis.explain.explain import Explainer
from planner.analysis.explain.keys import leaves, numbers
from planner.config.run import RunConfig
from planner.document import document
from planner.report.explain import explanation_text, key_lines
from tui.panes.pane import Pane
from tui.session import View
from tui.widgets.text import Text

_NARROWEST = 40
_FIRST_KEY = "cost.usd"  # explained first


class ExplainPane(Pane, can_focus=False):
    """A filter, the list, the explanation. Recording the plan and importing sympy happen in a thread."""

    def __init__(self, *, id: str) -> None:
        super().__init__(id=id)
        self._explainer: Explainer | None = None
        self._shown: tuple[RunConfig, int] | None = None
        self._key = _FIRST_KEY
        self._values: dict[str, int | float] = {}

    def compose(self) -> ComposeResult:
        with Vertical(id="list"):
            yield Input(id="filter", placeholder="part of a name, such as bytes or cost", compact=True)
            yield OptionList(id="keys", markup=False, compact=True)
        with ScrollableContainer(id="explanation"):
            yield Text("…", id="why")

    def show(self, view: View) -> None:
        """List the numbers of a new plan, and explain the selected one."""
        plan, width = view.result.plan, self._width()
        if not view.result.settled or width < _NARROWEST:
            return  # the device's numbers come in a moment, and so does the layout
        if self._shown is None or self._shown[0] is not plan.config:
            self._values = numbers(leaves(document(plan, ())))
            self._list()
        if self._shown != (plan.config, width):
            self._shown = (plan.config, width)
            self._explain(plan.config, self._key, width)

    def _width(self) -> int:
        return self.query_one("#explanation").size.width - 1

    @on(Input.Changed, "#filter")
    def _filtered(self, event: Input.Changed) -> None:
        event.stop()
        self._list()

    @on(Input.Submitted, "#filter")
    def _to_the_list(self, event: Input.Submitted) -> None:
        event.stop()
        self.query_one("#keys").focus()

    @on(OptionList.OptionHighlighted, "#keys")
    def _chosen(self, event: OptionList.OptionHighlighted) -> None:
        event.stop()
        if event.option_id is not None and event.option_id != self._key and self._shown is not None:
            self._key = event.option_id
            self._explain(self._shown[0], self._key, self._width())

    def _list(self) -> None:
        part = self.query_one("#filter", Input).value.strip().lower()
        found = {key: value for key, value in self._values.items() if part in key.lower()}
        place = self.query_one("#keys", OptionList)
        with self.prevent(OptionList.OptionHighlighted):
            place.clear_options()
            place.add_options(Option(line, id=key) for key, line in key_lines(found).items())
            if self._key in found:
                place.highlighted = list(found).index(self._key)

    @work(thread=True, exclusive=True, group="explain")
    def _explain(self, config: RunConfig, key: str, width: int) -> None:
        if self._explainer is None or self._explainer.config is not config:
            self._explainer = Explainer(config)
        explainer = self._explainer
        known = isinstance(explainer.values.get(key), int | float)
        text = explanation_text(explainer.explain(key), width) if known else f"{key} is unknown in this plan"
        if not get_current_worker().is_cancelled:
            self.app.call_from_thread(self.query_one("#why", Text).put, text)
