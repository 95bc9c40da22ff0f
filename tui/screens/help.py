"""Help: what the field at hand wants, and what the signs mean."""

from __future__ import annotations

from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.screen import ModalScreen
from textual.widgets import Static

from planner.inputs.field_names import field_text

HELP = """\
Every key computes the plan anew. An empty field stands for the value in parentheses, which a rule \
chose: the end of the summary says which. Text that cannot be used leaves the last valid result, dimmed.

Numbers are typed as people write them: 125M 1.3B 10B 4Mi 1_000_000 1e9 40% $2.50.

✓ fits  ✗ does not fit  ? unknown  ! warning  · note  … on its way
(low … high) is the interval of a prediction.

? shows every key. All of it is a command too: gptplan estimate --help"""


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
            yield Static(f"{first}\n\n{HELP}" if first else HELP, markup=False)
