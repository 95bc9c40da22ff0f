"""The tabs. A new one is a module here with a `Pane`, and a line in PANES."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, NamedTuple

from tui.files import is_served

if TYPE_CHECKING:
    from tui.panes.pane import Pane


class PaneKind(NamedTuple):
    """A tab: its id, its title, and the class behind it, imported when the tab is first shown."""

    id: str
    title: str
    module: str
    name: str

    def make(self) -> Pane:
        """The pane, new."""
        found: Pane = getattr(import_module(self.module), self.name)(id=f"pane-{self.id}")
        return found


PANES = (
    PaneKind("summary", "Summary", "tui.panes.summary", "SummaryPane"),
    PaneKind("memory", "Memory", "tui.panes.memory", "MemoryPane"),
    PaneKind("schedule", "Schedule", "tui.panes.schedule", "SchedulePane"),
    PaneKind("explain", "Explain", "tui.panes.explain", "ExplainPane"),
    PaneKind("config", "Config", "tui.panes.config", "ConfigPane"),
    PaneKind("run", "Run", "tui.panes.run", "RunPane"),
    PaneKind("compare", "Compare", "tui.panes.compare", "ComparePane"),
)
NOT_SERVED = ("run", "compare")  # they start processes and read any directory, which a browser must not


def panes() -> tuple[PaneKind, ...]:
    """All tabs; in a browser those that only plan."""
    return tuple(kind for kind in PANES if not (is_served() and kind.id in NOT_SERVED))
