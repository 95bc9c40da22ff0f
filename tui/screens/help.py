"""Help: the focused field, and the meaning of the signs."""

from __future__ import annotations

from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.screen import ModalScreen
from textual.widgets import Static

from planner.inputs.field_names import field_text

_HELP = """\
The plan is computed again at every key. An empty field uses the default in parentheses; the end of the \
summary lists each default with its source. While a field is wrong, the last valid result stays, dimmed.

Numbers, as examples: 125M 1.3B 10B 4Mi 1_000_000 1e9 40% $2.50.

✓ fits  ✗ does not fit  ? unknown  ! warning  · note  … being computed
(low … high) is the interval of a prediction.

? shows every key. Everything here is also a command: gptplan estimate --help"""


class HelpScreen(ModalScreen[None]):
    """Closes at Escape, F1 or Enter."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape,f1,enter", "dismiss", "Close")]

    def __init__(self, field: str | None, about: str = "") -> None:
        super().__init__()
        self.field, self.about = field, about

    def compose(self) -> ComposeResult:
        with VerticalScroll(classes="dialog") as dialog:
            dialog.border_title, dialog.border_subtitle = "Help", "Esc closes"
            first = field_text(self.field) if self.field else self.about
            yield Static(f"{first}\n\n{_HELP}" if first else _HELP, markup=False)
