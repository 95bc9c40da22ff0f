"""Speed of the terminal planner: first paint in a fresh process, and time from a key to the app at rest.

    python -m benchmarks.tui [--runs 9] [--keys 60] [--json FILE]

`first_paint_seconds`: start of Python to the first screen with numbers on it. `key_seconds`: from a key press in a
field until every message is handled and the screen is drawn; the replay in a thread begins when the keys rest and is
timed apart, as `settled_seconds`. Both under Textual's Pilot: what a terminal would be sent is made, and not written.
"""

from __future__ import annotations

import argparse
import asyncio
import compileall
import os
import subprocess
import sys
import time
from pathlib import Path
from statistics import median, quantiles
from typing import Any

from benchmarks.header import write

ROOT = Path(__file__).resolve().parent.parent
AS_OF = "2026-11-21"
FIRST = """
import asyncio
from tui.session import Session
from tui.start import planner

async def main():
    app = planner(Session(as_of="2026-11-21", version="0"))
    async with app.run_test(size=(120, 40)) as pilot:
        while "tokens/s" not in str(app.query_one("#headline").render()):
            await asyncio.sleep(0)
        app.screen._compositor.render_strips()
        print("painted", flush=True)
        import os
        os._exit(0)

asyncio.run(main())
"""
BARE = "import textual.app"


def seconds(code: str) -> float:
    """Wall-clock seconds of a whole process, bytecode compiled."""
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    begin = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL, cwd=ROOT, env=environment)
    return time.perf_counter() - begin


async def keys(count: int, tab: str) -> tuple[list[float], list[float]]:
    """Seconds of each key until the app is idle, and until the replayed numbers are shown."""
    from tui.session import Session
    from tui.start import planner
    from tui.widgets.results import Results

    app = planner(Session(as_of=AS_OF, version="0"))
    app.animation_level = "none"
    display = app._display

    def drawn(screen: Any, update: Any) -> None:
        display(screen, update)
        if hasattr(update, "render_segments"):
            update.render_segments(app.console)  # what a driver would be sent; Pilot has none

    app._display = drawn  # type: ignore[method-assign]
    found: list[float] = []
    settled: list[float] = []
    async with app.run_test(size=(120, 40)) as pilot:

        async def rest() -> None:
            while not app.settled or any(not w.is_finished for w in app.workers):
                await asyncio.sleep(0.001)

        app.query_one(Results).open(tab)
        app.query_one("#tokens").focus()
        await pilot.press("home")
        await rest()
        for i in range(count):
            await rest()
            await pilot.pause()
            before, begin = app.form_state, time.perf_counter()
            app.post_message(_key("backspace" if i % 2 else "5"))
            while app.form_state is before:
                await asyncio.sleep(0)
            await pilot._wait_for_screen()
            found.append(time.perf_counter() - begin)
            await rest()
            settled.append(time.perf_counter() - begin)
    return found, settled


def _key(name: str) -> object:
    from textual.events import Key

    return Key(name, name if len(name) == 1 else None)


def main() -> None:
    """Measure, print, and write where asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=9)
    parser.add_argument("--keys", type=int, default=60)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    for package in ("gptplan", "planner", "tui"):
        compileall.compile_dir(ROOT / package, quiet=1)
    seconds(FIRST)
    pairs = [(seconds(FIRST), seconds(BARE)) for _ in range(options.runs)]
    found: dict[str, object] = {
        "load_average": os.getloadavg()[0],
        "runs": options.runs,
        "first_paint_seconds": median(a for a, _ in pairs),
        "first_paint_seconds_min": min(a for a, _ in pairs),
        "import_textual_seconds": median(b for _, b in pairs),
        "keys": options.keys,
    }
    for tab in ("summary", "memory", "schedule", "explain", "config"):
        each, settled = asyncio.run(keys(options.keys, tab))
        found[f"key_seconds_{tab}"] = {
            "median": median(each),
            "p90": quantiles(each, n=10)[8],
            "min": min(each),
            "settled_median": median(settled),
        }
    write(found, options.json)


if __name__ == "__main__":
    main()
