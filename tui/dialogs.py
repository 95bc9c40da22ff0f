"""One dialog at a time: none over another, and none over the palette."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from textual.app import App
from textual.screen import Screen

Answer = TypeVar("Answer")


def is_dialog_open(app: App[Any]) -> bool:
    """Whether a dialog, or the palette, is over the first screen."""
    return len(app.screen_stack) > 1


def open_dialog(app: App[Any], dialog: Screen[Answer], answered: Callable[[Answer | None], None] | None = None) -> bool:
    """Whether the dialog is opened: not over another one, where a message says so.

    Keys are refused before they come here. A command of the palette and the end of a thread come later than the key
    that asked for them, and another dialog may be open by then.
    """
    if is_dialog_open(app):
        app.notify("close this dialog first, then try again", title="✗ a dialog is open", severity="warning")
        return False
    app.push_screen(dialog, answered)
    return True
