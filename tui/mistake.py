"""What is wrong with the text in the form."""

from __future__ import annotations

from textual.reactive import reactive
from textual.widgets import Static

from planner.errors import PlanError


class Mistake(Static):
    """A `PlanError` as what, why and fix; takes no room when there is none."""

    error: reactive[PlanError | None] = reactive(None)

    def __init__(self) -> None:
        super().__init__(id="mistake", markup=False)

    def watch_error(self, error: PlanError | None) -> None:
        self.display = error is not None
        self.update("" if error is None else f"✗ {error.message()}")
