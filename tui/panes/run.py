"""Run: start a training run or attach to one, and follow it. The run is another process and outlives the planner."""

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
from tui.dialogs import open_dialog
from tui.panes.pane import Pane
from tui.run_keys import RUN_KEYS
from tui.screens.run import AttachScreen, KillScreen, StartScreen
from tui.session import View
from tui.watched import RunStatus, WatchedRun, remember
from tui.widgets.text import Text

_POLL_SECONDS = 0.5  # s between two reads of the files
POSSIBLE = {
    "detach": ("nothing", "starting", "running", "stopping", "closing", "finished", "stopped", "failed", "gone"),
    "stop": ("starting", "running", "stopping", "closing"),
    "checkpoint": ("running",),
    "resume": ("stopped", "failed", "gone"),
}
_HELP = (
    """\
Run starts the reference trainer as a process of its own and follows its files.

"""
    + "\n".join(f"{key}  {title}: {sentence}." for key, _, title, sentence in RUN_KEYS)
    + """

The keys work while this tab has the focus. The config is written beside the run directory (DIR.toml), and the \
output of the trainer is in DIR.log. "predicted" is the value in the plan made before the run; · means that it is not \
predicted.
The same by command: gptplan run FILE --out DIR; gptplan run --resume DIR."""
)
EMPTY = """\
No run is watched.

n  train the plan in the form
a  attach to an existing run"""


class RunPane(Pane):
    """Shows `watched`; a thread reads the new lines of its files twice a second."""

    HELP: ClassVar[str] = _HELP
    BINDINGS: ClassVar[list[BindingType]] = [Binding(key, method, title) for key, method, title, _ in RUN_KEYS]
    status: var[RunStatus | None] = var(None, always_update=True)

    def __init__(self, *, id: str) -> None:
        super().__init__(id=id)
        self.watched: WatchedRun | None = None
        self.program = trainer.PROGRAM

    def compose(self) -> ComposeResult:
        yield Text(EMPTY, id="run-stage")
        yield Text(id="run-numbers")
        yield Text(id="run-curves")
        yield Text(id="run-words")

    def on_mount(self) -> None:
        self.set_interval(_POLL_SECONDS, self.poll)

    def watch_view(self, view: View | None) -> None:
        """A run does not change with the form, only with the width."""
        self.watch_status(self.status)

    def poll(self) -> None:
        """Read the new lines, unless the last read has not ended."""
        if self.watched is not None and not any(w.group == "run" and not w.is_finished for w in self.workers):
            self._read(self.watched)

    @work(thread=True, group="run")
    def _read(self, watched: WatchedRun) -> None:
        found = watched.read_status()
        if not get_current_worker().is_cancelled:
            self.app.call_from_thread(self._status_read, watched, found)

    def _status_read(self, watched: WatchedRun, found: RunStatus) -> None:
        if self.watched is watched:
            self.status = found

    def watch_status(self, status: RunStatus | None) -> None:
        """Draw the status in the available width."""
        self.refresh_bindings()
        if not self.display or not self.is_mounted:
            return
        texts = ("", "", "") if status is None else _sections(status, self.room(40), self.size.height)
        self.query_one("#run-stage", Text).put(EMPTY if status is None else _header(status, self.room(40)))
        for name, text in zip(("#run-numbers", "#run-curves", "#run-words"), texts, strict=True):
            self.query_one(name, Text).put(text)

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Show a key of the run only where it is possible."""
        if action in POSSIBLE:
            return self.status is not None and self.status.stage in POSSIBLE[action]
        return True

    def watch_run(self, directory: Path, process: subprocess.Popen[bytes] | None = None) -> None:
        """Follow a run from now on."""
        self.watched, self.status = WatchedRun(directory, process), None
        remember(directory)
        self.focus()
        self.poll()

    def action_start(self) -> None:
        """Ask for a directory, and train the plan in the form."""
        if self.view is None or self.view.stale:
            self.notify("fix the field marked ✗ first", title="✗ no plan to run", severity="error")
            return
        config = self.view.result.plan.config
        first = new_directory(Path("runs"), config.model.name)

        def begin(request: trainer.StartRequest) -> None:
            process = trainer.start_run(request, config, self.program)
            self.call_after_refresh(self.watch_run, request.directory, process)

        open_dialog(self.app, StartScreen(first, begin))

    def action_attach(self) -> None:
        """Ask which run."""
        open_dialog(self.app, AttachScreen("Attach to a run"), self._attached)

    def _attached(self, directory: Path | None) -> None:
        if directory is not None:
            self.watch_run(directory)

    def action_detach(self) -> None:
        """Stop following the run; no signal is sent to it."""
        if self.watched is not None:
            self.notify(f"{self.watched.directory} is not changed; a: attach again", title="detached", markup=False)
        self.watched = self.status = None

    def action_stop(self) -> None:
        """Ask the run to stop; the second time, ask whether to kill it."""
        watched = self.watched
        if watched is None or self.status is None or self.status.process is None:
            return
        if not watched.stop_requested:
            self._tried(lambda: self._send(signal.SIGINT, watched))
        else:
            open_dialog(self.app, KillScreen(watched.directory), self._kill)

    def _kill(self, sure: bool | None) -> None:
        watched = self.watched
        if sure and watched is not None:
            self._tried(lambda: self._send(signal.SIGKILL, watched))

    def action_checkpoint(self) -> None:
        """Ask for a checkpoint; training goes on."""
        watched = self.watched
        if watched is not None and self._tried(lambda: self._send(signal.SIGUSR1, watched)):
            self.notify(
                "it is written after the current step; see the events", title="✓ checkpoint requested", timeout=3
            )

    def _send(self, number: signal.Signals, watched: WatchedRun) -> None:
        process = watched.process_now()
        if process is None:
            raise PlanError("the run has ended already")
        trainer.send(number, process)
        watched.stop_requested = watched.stop_requested or number != signal.SIGUSR1
        self.poll()

    def action_resume(self) -> None:
        """Continue the run, and follow it."""
        watched = self.watched
        if watched is not None:
            directory = watched.directory
            self._tried(lambda: self.watch_run(directory, trainer.resume_run(directory, self.program)))

    def _tried(self, act: Callable[[], None]) -> bool:
        try:
            act()
        except PlanError as error:
            self.notify(error.message(), title="✗ not possible", severity="error", markup=False)
            return False
        return True


def _header(status: RunStatus, width: int) -> str:
    of = f", process {status.process}" if status.process is not None else ""
    return "\n".join(
        [stage_text(status.stage, status.code), *wrap(f"{status.record.directory}{of}", indent=0, width=width)]
    )


def _sections(status: RunStatus, width: int, height: int) -> tuple[str, str, str]:
    """Numbers, curves, log. A failure comes before the numbers."""
    record, log = status.record, status.log
    failure = (
        failure_lines(log, record.events[-1] if record.events else None, width) if status.stage == "failed" else []
    )
    numbers = figure_lines(status.figures, width) if record.last is not None or record.plan is not None else []
    rows = max(5, min(10, height // 4))
    drawn = curves(record, width=width, height=rows) if record.last is not None else []
    words = ["Events (UTC)", *event_lines(record.events, 8, width)] if record.events else []
    words += [f"Log {log_of(record.directory)}", *(f"  {line}"[:width] for line in log[-8:])] if log else []
    parts = ([*failure, "", *numbers] if failure else numbers, drawn, words)
    numbers_text, curves_text, words_text = ("\n".join(["", *part]) if part else "" for part in parts)
    return numbers_text, curves_text, words_text
