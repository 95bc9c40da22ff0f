"""Config: the command that gives the plan, and the run.toml that Ctrl+S writes."""

from __future__ import annotations

from pathlib import Path

from textual import work
from textual.app import ComposeResult
from textual.worker import get_current_worker

from planner.config.run import RunConfig
from planner.inputs.run_toml import file_text
from tui.panes.pane import Pane
from tui.session import View
from tui.widgets.text import Text


class ConfigPane(Pane):
    """The text is made in a thread: a config with many defaults takes longer than one key."""

    def compose(self) -> ComposeResult:
        yield Text(id="same")
        yield Text("…", id="toml")

    def show(self, view: View) -> None:
        """Show the command now, the file when its text is made."""
        self.query_one("#same", Text).put(f"$ {view.command}\n")
        self._write_out(view.result.plan.config)

    @work(thread=True, exclusive=True, group="config")
    def _write_out(self, config: RunConfig) -> None:
        text = file_text(config, Path("run.toml"))
        if not get_current_worker().is_cancelled:
            self.app.call_from_thread(self.query_one("#toml", Text).put, text)
