"""Every key and what it does."""

from __future__ import annotations

from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Grid, VerticalScroll
from textual.screen import ModalScreen
from textual.widgets import Static

from tui.actions import ACTIONS
from tui.run_keys import RUN_KEYS

ELSEWHERE = (
    ("Tab, ↓, Enter", "Next field"),
    ("Shift+Tab, ↑", "Field above"),
    ("→", "Take the suggested name; open a group"),
    ("Enter, Space", "Open or close a group"),
    ("PgUp, PgDn", "Scroll the tab, from the form too"),
    ("←, →", "Other tab; on Schedule move the cursor, with Shift further, Home and End to the ends"),
    (" ".join(key for key, *_ in RUN_KEYS), "On Run: " + ", ".join(title for _, _, title, _ in RUN_KEYS).lower()),
    ("z", "On Memory: change the scale of the bars"),
    ("Ctrl+P", "Palette: every action by name, and themes"),
)


class KeysScreen(ModalScreen[None]):
    """Closes at Escape, ? or Enter."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape,question_mark,enter", "dismiss", "Close")]

    def compose(self) -> ComposeResult:
        with VerticalScroll(classes="dialog") as dialog:
            dialog.border_title, dialog.border_subtitle = "Keys", "Esc closes"
            with Grid():
                for keys, sentence in (*((a.spelled(), a.sentence) for a in ACTIONS), *ELSEWHERE):
                    yield Static(keys, markup=False)
                    yield Static(sentence, markup=False)
