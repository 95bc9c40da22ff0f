"""Pictures of the terminal planner, for README and the page beside: `python -m docs.looks` draws them all anew.

Each is what a person sees after the keys below, on a day and a machine that never change.
"""

from __future__ import annotations

import asyncio
import os
import re
from contextlib import chdir
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

HERE = Path(__file__).resolve().parent
AS_OF = "2026-11-21"


class Look(NamedTuple):
    """A picture: columns and rows, texts put into fields, the tab on top, what has the focus, keys pressed at the end.

    run: the recorded run that is watched, of those beside this file.
    """

    name: str
    size: tuple[int, int]
    tab: str = "summary"
    before: tuple[str, ...] = ()
    fields: tuple[tuple[str, str], ...] = ()
    keys: tuple[str, ...] = ()
    focus: str = ""
    run: str = ""


RUN = (("params", ""), ("model", "llama-2-7b"), ("tokens", "100B"), ("gpu", "h100-80gb"), ("gpus", "8"))
LOOKS = (
    Look("summary", (120, 40)),
    Look("summary-60x20", (60, 20), keys=("f2",)),
    Look("form-60x20", (60, 20), fields=(("tokens", "10 bananas"),)),
    Look("summary-80x24", (80, 24), keys=("f2",)),
    Look("summary-200x60", (200, 60)),
    Look("pinned", (120, 40), before=("f6",), fields=(("tokens", "20B"), ("gpus", "4"))),
    Look("memory", (120, 40), tab="memory", fields=(("micro_batch", "64"),)),
    Look("memory-too-much", (160, 40), tab="memory", fields=RUN),
    Look("schedule", (120, 40), tab="schedule", fields=(("schedule", "wsd"),)),
    Look("explain", (120, 40), tab="explain"),
    Look("config", (120, 40), tab="config"),
    Look("mistake", (120, 40), fields=(("gpu", "h100"),)),
    Look("jump", (120, 40), keys=("ctrl+o",)),
    Look("keys", (120, 40), keys=("question_mark",)),
    Look("run", (120, 40), tab="run", run="run"),
    Look("run-80x24", (80, 24), before=("f2",), tab="run", run="run"),
    Look("run-start-80x24", (80, 24), before=("f2",), tab="run", focus="#pane-run", keys=("n",)),
    Look("compare", (120, 40), tab="compare"),
    Look("compare-60x20", (60, 20), before=("f2",), tab="compare"),
)


def main() -> None:
    """Draw every picture."""
    with TemporaryDirectory() as cache, chdir(HERE):  # the runs that are listed are those beside this file
        os.environ["XDG_CACHE_HOME"] = cache
        for look in LOOKS:
            (HERE / f"{look.name}.svg").write_text(asyncio.run(drawn(look)), encoding="utf-8")
            print(f"docs/looks/{look.name}.svg")


async def drawn(look: Look) -> str:
    """The SVG of a picture."""
    from textual.widgets import Input

    from tui.app import PlannerApp
    from tui.panes.run import RunPane
    from tui.session import Session
    from tui.widgets.form import PlanForm
    from tui.widgets.results import Results

    app = PlannerApp(Session(as_of=AS_OF, version="0"))
    app.animation_level = "none"
    async with app.run_test(size=look.size, notifications=False) as pilot:

        async def rest() -> None:
            quiet = 0
            while quiet < 8:
                await pilot.pause(0.02)
                quiet = quiet + 1 if app.settled and all(w.is_finished for w in app.workers) else 0

        await rest()
        await pilot.press(*look.before)
        for name, text in look.fields:
            app.query_one(PlanForm).open_group_of(name)
            await pilot.pause()
            place = app.query_one(f"#{name}", Input)
            place.focus()
            place.value = text
            await pilot.pause()
        app.query_one(Results).open(look.tab)
        for place in app.query(Input):
            place.cursor_blink = False  # else the picture depends on the moment
        await rest()
        if look.run:
            pane = app.query_one(RunPane)
            pane.watch_run(Path(look.run))
            while pane.status is None:
                await pilot.pause(0.02)
        if look.focus:
            app.query_one(look.focus).focus()
        await pilot.press(*look.keys)
        await rest()
        app.clear_notifications()
        await rest()
        return smaller(app.export_screenshot())


def smaller(svg: str) -> str:
    """Without fonts from elsewhere: any fixed-width font shows the same, as every run of text has its own length."""
    svg = re.sub(r"@font-face\s*{.*?}\s*", "", svg, flags=re.S)
    svg = re.sub(r"font-family: ?Fira Code[^;]*;", "font-family: DejaVu Sans Mono, Menlo, Consolas, monospace;", svg)
    svg = re.sub(r"terminal-\d+", "t", svg)  # a number that changes from run to run
    return "\n".join(line.strip() for line in svg.splitlines() if line.strip()) + "\n"
