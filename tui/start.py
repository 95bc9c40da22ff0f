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
    from tui.kept_form import FormKeeper

    return PlannerApp(session, painted=_collect_from_here, keeper=FormKeeper())


def run_planner(session: Session) -> tuple[int, str]:
    """Run the planner to its end: the exit code, and a message unless the end was a clean one."""
    app = planner(session)
    app.run()
    kept = app.keeper.path if app.keeper is not None else None
    if app.crash is not None:
        from tui.crash import crash_report

        return 1, f"error: {crash_report(app.crash, kept).message()}"
    code = app.return_code or 0
    offered = "" if kept is None else f"; start gptplan tui again, which offers the form kept in {kept}"
    return code, f"the planner was ended by signal {code - 128}{offered}" if code > 128 else ""


def _collect_from_here() -> None:
    gc.freeze()
    gc.enable()
