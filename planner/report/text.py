"""What every text for people is made of: aligned tables, wrapped sentences, lines of a label and its value."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import NamedTuple

LABEL = 26
WIDTH = 110
NARROW = 80  # columns; below, a source stands under its key rather than under its value
MARKS = {"error": "✗ error", "warning": "! warning", "note": "· note"}
COMPONENT_NAMES = {
    "weights": "weights",
    "master_weights": "master weights",
    "gradients": "gradients",
    "optimizer": "optimizer states",
    "activations": "activations",
    "logits": "logits and loss",
    "temporary": "temporaries",
}
BASES = {
    "given": "from the speed that was given",
    "profile": "from this machine's measured kernels",
    "datasheet": "roofline of the data sheet, literature shares, nothing fitted: the interval is wide",
    "unknown": "unknown for this hardware",
}


class Page(NamedTuple):
    """So many columns wide."""

    width: int = WIDTH

    def line(self, label: str, value: str, note: str = "") -> str:
        """A label, its value and a note; what has no room goes on below the value."""
        whole = f"  {label:<{LABEL}}{value}{'   ' + note if note else ''}"
        return "\n".join(_wrapped(whole, self.width, "", " " * (LABEL + 2)))

    def heading(self, text: str) -> str:
        """The name of a section."""
        return "\n".join(_wrapped(text, self.width, "", "  "))

    def remark(self, text: str) -> list[str]:
        """A sentence about the line above."""
        return wrap(text, indent=LABEL + 4 if self.width >= NARROW else 6, width=self.width)


def table(rows: Sequence[Sequence[str]], *, right: frozenset[int] = frozenset()) -> list[str]:
    """Rows as aligned lines; the columns in `right` are right-aligned."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [c.rjust(w) if i in right else c.ljust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True))]
        lines.append("  " + "  ".join(cells).rstrip())
    return lines


def wrap(text: str, *, indent: int, width: int = WIDTH) -> list[str]:
    """`text` as indented lines of at most `width` characters; flags are not broken at their hyphens."""
    return _wrapped(text, width, " " * indent, " " * indent)


def _wrapped(text: str, width: int, first: str, others: str) -> list[str]:
    return textwrap.wrap(text, width, initial_indent=first, subsequent_indent=others, break_on_hyphens=False)
