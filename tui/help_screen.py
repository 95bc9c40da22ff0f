"""Help: what the field at hand wants, what the signs mean, and the keys."""

from __future__ import annotations

from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.screen import ModalScreen
from textual.widgets import Static

from tui.fields import Field

HELP = """\
Every key computes the plan anew. An empty field stands for the value in parentheses, which a rule \
chose: the end of the summary says which. Text that cannot be used leaves the last valid result, dimmed.

✓ fits  ✗ does not fit  ? unknown  ! warning  · note
(low … high) is the interval of a prediction.

Tab, ↓, Enter   next field
Shift+Tab, ↑    field above
→               take the suggested name
PgUp, PgDn      scroll the summary
Tab into it     arrows scroll it, also sideways
Ctrl+S          save as run.toml
Ctrl+Y          copy the command that gives this plan
Ctrl+P          commands and themes
Ctrl+Q          quit

All of it is a command too: gptplan estimate --help"""


class HelpScreen(ModalScreen[None]):
    """Closes at Escape, F1 or Enter."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape,f1,enter", "dismiss", "Close")]

    def __init__(self, field: Field | None) -> None:
        super().__init__()
        self.field = field

    def compose(self) -> ComposeResult:
        with VerticalScroll(classes="dialog") as dialog:
            dialog.border_title, dialog.border_subtitle = "Help", "Esc closes"
            yield Static(self._text(), markup=False)

    def _text(self) -> str:
        if self.field is None:
            return HELP
        known = f"\n  one of: {', '.join(self.field.known)}" if self.field.known else ""
        return f"{self.field.label}\n  {self.field.help}{known}\n\n{HELP}"
