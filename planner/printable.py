"""Text from files, names and drivers, made fit for a terminal and for a message."""

from __future__ import annotations

import re

MOST_QUOTED = 80  # characters of one quoted value in a message
MOST_UNBROKEN = 400  # characters without a space in a message: a path is shown whole, a megabyte in its place is not
MOST_IN_ALL = 8000  # characters of one part of a message
_KEPT = "\n\t\u00a0\u200c\u200d"  # "isprintable" has no place for them, and no terminal executes them
# as repr() writes a text; an apostrophe inside a word begins none
_QUOTED = re.compile(r"(?<!\w)('(?:\\.|[^'\\\n]){81,}'|\"(?:\\.|[^\"\\\n]){81,}\")(?!\w)")
_UNBROKEN = re.compile(rf"\S{{{MOST_UNBROKEN + 1},}}")


def printable(text: str) -> str:
    """The text with what a terminal would execute, or could not show, replaced: control characters, changes of
    direction, halves of surrogate pairs."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in _KEPT else "\ufffd" for c in text)


def shortened(text: str, most: int = MOST_QUOTED) -> str:
    """The text, or its beginning and end around "…": `most` characters at the most."""
    if len(text) <= most:
        return text
    head = (most - 1) * 2 // 3
    return f"{text[:head]}…{text[len(text) - (most - 1 - head) :]}"


def message_text(text: str) -> str:
    """A part of a message, fit for a terminal, with every long value in it cut.

    A value in quotes, as repr() writes it, keeps 80 characters; what has no spaces, such as a path, keeps 400.
    """
    text = printable(shortened(text, MOST_IN_ALL))
    text = _QUOTED.sub(lambda found: _quoted(found.group()), text)
    return _UNBROKEN.sub(lambda found: shortened(found.group(), MOST_UNBROKEN), text)


def _quoted(text: str) -> str:
    if text[1] == "/":  # a path, of which every part is needed
        return text
    return f"{text[0]}{shortened(text[1:-1])}{text[-1]}"
