"""Text that changes at every key."""

from __future__ import annotations

from textual.content import Content
from textual.widgets import Static

from planner.printable import printable


class Text(Static):
    """A `Static` that updates the layout only when the size of its text changes."""

    def __init__(self, text: str = "", *, id: str) -> None:
        text = printable(text)
        super().__init__(text, id=id, markup=False)
        self._put: str | Content = text
        self._extent: object = None

    def put(self, text: str | Content, *, fixed: bool = False) -> None:
        """Show a text. fixed: the style gives the widget its size, whatever the text."""
        text = _printable_content(text)
        if text == self._put:
            return
        lines = (text.plain if isinstance(text, Content) else text).splitlines()
        least = 0 if self.styles.is_auto_width else self.size.width  # within a given width only the lines count
        extent = None if fixed else (len(lines), max([least, *map(len, lines)]))
        changed = not fixed and extent != self._extent
        self._put, self._extent = text, extent
        self.update(text, layout=changed)


def _printable_content(text: str | Content) -> str | Content:
    """The text without what a terminal would execute; one that has such characters loses its styles."""
    if isinstance(text, str):
        return printable(text)
    shown = printable(text.plain)
    return text if shown == text.plain else Content(shown)
