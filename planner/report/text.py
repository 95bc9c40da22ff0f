"""Text for people: sections of labelled lines, aligned tables and wrapped sentences, for a width in columns."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from planner.finding import Finding
from planner.interval import Interval
from planner.memory.breakdown import Memory

LABEL = 26
WIDTH = 110
VERDICTS = {True: "✓ fits", False: "✗ does not fit", None: "? unknown"}  # by Memory.fits
MARKS = {"error": "✗ error", "warning": "! warning", "note": "· note"}
NARROWEST_CELL = 24  # columns; a narrower cell gets its own lines
SEARCHING = "… searching for the cheapest change that fits"
COMPONENT_NAMES = {
    "weights": "weights",
    "master_weights": "master weights",
    "gradients": "gradients",
    "optimizer": "optimizer states",
    "activations": "activations",
    "logits": "logits and loss",
    "temporary": "temporaries",
    "communication": "buckets of DDP",
}
BASES = {
    "given": "from the given speed",
    "profile": "from this machine's measured kernels",
    "datasheet": "estimated from published specs and published kernel efficiencies",
    "unknown": "unknown",
}


class Page(NamedTuple):
    """A text of a given width, made of sections: a title above lines, tables and sentences, indented below it."""

    width: int = WIDTH
    indent: int = 2

    def section(self, title: str, *lines: str) -> str:
        """A title above its lines; "" if there are none, or only empty ones."""
        return "\n".join([self.heading(title), *lines]) if any(lines) else ""

    def heading(self, text: str) -> str:
        """The title of a section."""
        return "\n".join(_wrapped(text, self.width, "", "  "))

    def line(self, label: str, value: str, note: str = "") -> str:
        """A label, its value and a note; a note without room goes below the value."""
        first, below = f"{'':<{self.indent}}{label:<{LABEL}}{value}", LABEL + self.indent
        if note and len(first) + 3 + len(note) <= self.width:
            return f"{first}   {note}"
        return "\n".join([*_wrapped(first, self.width, "", " " * below), *self.sentence(note, below)])

    def sentence(self, text: str, indent: int | None = None) -> list[str]:
        """A sentence in lines of this width; none for an empty one."""
        return wrap(text, indent=self.indent if indent is None else indent, width=self.width)

    def table(self, rows: Sequence[Sequence[str]], right: Iterable[int] = ()) -> list[str]:
        """Rows as aligned lines. If they are too wide, the last column is wrapped."""
        lines = self._aligned(rows, right)
        last = len(rows[0]) - 1
        if last in right or max(map(len, lines)) <= self.width:
            return lines
        first = self._aligned([row[:-1] for row in rows], right)
        start = max(map(len, first)) + 2
        if self.width - start < NARROWEST_CELL:
            return [part for line, row in zip(first, rows, strict=True) for part in (line, *self.sentence(row[-1], 6))]
        found = []
        for line, row in zip(first, rows, strict=True):
            cell = wrap(row[-1], indent=start, width=self.width) or [""]
            found += [(line.ljust(start) + cell[0][start:]).rstrip(), *cell[1:]]
        return found

    def narrowed(self, rows: Sequence[Sequence[str]], right: Iterable[int], fewest: int) -> list[str] | None:
        """The table with as many of its columns as there is room for, from the left; None below `fewest`."""
        for columns in range(len(rows[0]), fewest - 1, -1):
            lines = self._aligned([row[:columns] for row in rows], right)
            if max(map(len, lines)) <= self.width:
                return lines
        return None

    def _aligned(self, rows: Sequence[Sequence[str]], right: Iterable[int]) -> list[str]:
        widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
        lines = []
        for row in rows:
            cells = [c.rjust(w) if i in right else c.ljust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True))]
            lines.append(" " * self.indent + "  ".join(cells).rstrip())
        return lines

    def findings(self, found: Sequence[Finding]) -> list[str]:
        """Each finding's level and code, its message and its remedy."""
        lines = []
        for f in found:
            lines.append(f"{'':<{self.indent}}{MARKS[f.level]} [{f.code}]")
            lines += self.sentence(f.message, self.indent + 4)
            lines += self.sentence(f"→ {f.remedy or SEARCHING}", self.indent + 4)
        return lines

    def defaults(self, assumed: Iterable[tuple[str, str, str]]) -> str:
        """The defaults used: key, value and rule."""
        return self.section("Defaults used", *(self.line(*one) for one in assumed))


def sections_text(*sections: str) -> str:
    """The sections with lines, separated by empty lines."""
    return "\n\n".join(section for section in sections if section)


def with_interval(spell: Callable[[float | None], str], number: Interval[int] | Interval[float]) -> tuple[str, str]:
    """A number and its interval, which is "" if both ends read the same."""
    low, high = spell(number.low), spell(number.high)
    return spell(number.value), f"({low} … {high})" if low != high else ""


def wrap(text: str, *, indent: int, width: int = WIDTH) -> list[str]:
    """`text` as indented lines of at most `width` characters; flags are not broken at their hyphens."""
    return _wrapped(text, width, " " * indent, " " * indent)


def _wrapped(text: str, width: int, first: str, others: str) -> list[str]:
    return textwrap.wrap(text, width, initial_indent=first, subsequent_indent=others, break_on_hyphens=False)


def fits_in_words(memory: Memory) -> tuple[str, str]:
    """Whether a plan fits, and where that is unknown why."""
    return VERDICTS[memory.fits], "" if memory.fits is not None else why_fits_is_unknown(memory)


def why_fits_is_unknown(memory: Memory) -> str:
    """The reason for a plan that is neither known to fit nor known not to."""
    assert memory.fits_unknown is not None, "it is known"
    return memory.fits_unknown.why
