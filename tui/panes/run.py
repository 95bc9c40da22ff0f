"""Run: the trainer, started or attached to, as far as it has come. The run is another process and outlives this one."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

from textual import work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.reactive import var
from textual.worker import get_current_worker

from planner.errors import PlanError
from planner.report.run import curves, event_lines, failure_lines, figure_lines, stage_text
from planner.report.text import wrap
from planner.runs.directory import log_of, new_directory
from tui import trainer
from tui.panes.pane import Pane
from tui.run_keys import RUN_KEYS
from tui.screens.run import AttachScreen, KillScreen, StartScreen
from tui.session import View
from tui.watched import Seen, Watched, remember
from tui.widgets.text import Text

EVERY = 0.5  # s between two looks at the files
POSSIBLE = {
    "detach": ("nothing", "starting", "running", "stopping", "closing", "finished", "stopped", "failed", "gone"),
    "stop": ("starting", "running", "stopping", "closing"),
    "checkpoint": ("running",),
    "resume": ("stopped", "failed", "gone"),
}
HELP = (
    """\
Run starts the reference trainer as a process of its own and follows its files.

"""
    + "\n".join(f"{key}  {title}: {sentence}." for key, _, title, sentence in RUN_KEYS)
    + """

The keys work while this tab has the focus. The config is written beside the run directory (DIR.toml), and what \
the trainer says is kept in DIR.log. "predicted" is what the plan of the run said before it began; · is what nobody \
predicts.
The same by command: gptplan run FILE --out DIR; gptplan run --resume DIR."""
)
EMPTY = """\
No run is watched.

n  start one from the plan in the form
a  attach to one that is there already"""


class RunPane(Pane):
    """Shows `watched`; two looks a second at its files, in a thread that reads only what is new."""

    HELP: ClassVar[str] = HELP
    BINDINGS: ClassVar[list[BindingType]] = [Binding(key, method, title) for key, method, title, _ in RUN_KEYS]
    seen: var[Seen | None] = var(None, always_update=True)

    def __init__(self, *, id: str) -> None:
        super().__init__(id=id)
        self.watched: Watched | None = None
        self.program = trainer.PROGRAM

    def compose(self) -> ComposeResult:
        yield Text(EMPTY, id="run-stage")
        yield Text(id="run-numbers")
        yield Text(id="run-curves")
        yield Text(id="run-words")

    def on_mount(self) -> None:
        self.set_interval(EVERY, self.look)

    def watch_view(self, view: View | None) -> None:
        """A run does not change with the form; only the room that it is drawn in."""
        self.watch_seen(self.seen)

    def look(self) -> None:
        """Read what is new, unless the last reading is still going on."""
        if self.watched is not None and not any(w.group == "run" and not w.is_finished for w in self.workers):
            self._look(self.watched)

    @work(thread=True, group="run")
    def _look(self, watched: Watched) -> None:
        found = watched.look()
        if not get_current_worker().is_cancelled:
            self.app.call_from_thread(self._looked, watched, found)

    def _looked(self, watched: Watched, found: Seen) -> None:
        if self.watched is watched:
            self.seen = found

    def watch_seen(self, seen: Seen | None) -> None:
        """Draw what was seen for the room there is."""
        self.refresh_bindings()
        if not self.display or not self.is_mounted:
            return
        texts = ("", "", "") if seen is None else _drawn(seen, self.room(40), self.size.height)
        self.query_one("#run-stage", Text).put(EMPTY if seen is None else _headed(seen, self.room(40)))
        for name, text in zip(("#run-numbers", "#run-curves", "#run-words"), texts, strict=True):
            self.query_one(name, Text).put(text)

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """A key of the run is shown only where it can do something."""
        if action in POSSIBLE:
            return self.seen is not None and self.seen.stage in POSSIBLE[action]
        return True

    def watch_run(self, directory: Path, process: subprocess.Popen[bytes] | None = None) -> None:
        """Follow a run from now on."""
        self.watched, self.seen = Watched(directory, process), None
        remember(directory)
        self.focus()
        self.look()

    def action_start(self) -> None:
        """Ask where to, and train the plan in the form."""
        if self.view is None or self.view.stale:
            self.notify("mend the field marked ✗ first", title="✗ no plan to run", severity="error")
            return
        config = self.view.result.plan.config
        first = new_directory(Path("runs"), config.model.name)

        def begin(wish: trainer.Wish) -> None:
            process = trainer.start(wish, config, self.program)
            self.call_after_refresh(self.watch_run, wish.directory, process)

        self.app.push_screen(StartScreen(first, begin))

    def action_attach(self) -> None:
        """Ask which run."""
        self.app.push_screen(AttachScreen("Attach to a run"), self._attached)

    def _attached(self, directory: Path | None) -> None:
        if directory is not None:
            self.watch_run(directory)

    def action_detach(self) -> None:
        """Let go of the run; nothing is sent to it."""
        if self.watched is not None:
            self.notify(f"{self.watched.directory} is left as it is; a: attach again", title="detached", markup=False)
        self.watched = self.seen = None

    def action_stop(self) -> None:
        """Ask the run to stop; who asks again is asked whether to kill it."""
        watched = self.watched
        if watched is None or self.seen is None or self.seen.process is None:
            return
        if not watched.asked:
            self._tried(lambda: self._send(signal.SIGINT, watched))
        else:
            self.app.push_screen(KillScreen(watched.directory), self._kill)

    def _kill(self, sure: bool | None) -> None:
        watched = self.watched
        if sure and watched is not None:
            self._tried(lambda: self._send(signal.SIGKILL, watched))

    def action_checkpoint(self) -> None:
        """Ask for a checkpoint; training goes on."""
        watched = self.watched
        if watched is not None and self._tried(lambda: self._send(signal.SIGUSR1, watched)):
            self.notify("written after the step at hand; see the events", title="✓ checkpoint asked for", timeout=3)

    def _send(self, number: signal.Signals, watched: Watched) -> None:
        process = watched.process_now()
        if process is None:
            raise PlanError("the run has ended already")
        trainer.send(number, process)
        watched.asked = watched.asked or number != signal.SIGUSR1
        self.look()

    def action_resume(self) -> None:
        """Continue the run, and follow it."""
        watched = self.watched
        if watched is not None:
            directory = watched.directory
            self._tried(lambda: self.watch_run(directory, trainer.resume(directory, self.program)))

    def _tried(self, act: Callable[[], None]) -> bool:
        try:
            act()
        except PlanError as error:
            self.notify(error.message(), title="✗ not done", severity="error", markup=False)
            return False
        return True


def _headed(seen: Seen, width: int) -> str:
    of = f", process {seen.process}" if seen.process is not None else ""
    return "\n".join([stage_text(seen.stage, seen.code), *wrap(f"{seen.record.directory}{of}", indent=0, width=width)])


def _drawn(seen: Seen, width: int, height: int) -> tuple[str, str, str]:
    """Numbers, curves, words. A failure comes before the numbers: it is what is looked for."""
    record, log = seen.record, seen.log
    said = failure_lines(log, record.events[-1] if record.events else None, width) if seen.stage == "failed" else []
    numbers = figure_lines(seen.figures, width) if record.last is not None or record.plan is not None else []
    rows = max(5, min(10, height // 4))
    drawn = curves(record, width=width, height=rows) if record.last is not None else []
    words = ["Events (UTC)", *event_lines(record.events, 8, width)] if record.events else []
    words += [f"Log {log_of(record.directory)}", *(f"  {line}"[:width] for line in log[-8:])] if log else []
    parts = ([*said, "", *numbers] if said else numbers, drawn, words)
    numbers_text, curves_text, words_text = ("\n".join(["", *part]) if part else "" for part in parts)
    return numbers_text, curves_text, words_text
