"""The planner in a process of its own."""

from __future__ import annotations

import gc
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tui.app import PlannerApp
    from tui.session import Session


def planner(session: Session) -> PlannerApp:
    """The app, with Python's garbage collector off until the first paint.

    Importing and the first screen make objects that last: scanning them costs 50 ms before the first paint, and 70 to
    120 ms at some key every few seconds. So the collector starts after the first paint, with later objects only.
    """
    gc.disable()
    from tui.app import PlannerApp

    return PlannerApp(session, painted=_collect_from_here)


def _collect_from_here() -> None:
    gc.freeze()
    gc.enable()
