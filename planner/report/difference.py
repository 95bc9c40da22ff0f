"""Two plans side by side as text: below each difference the contribution of each changed field."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from planner.analysis.difference import Difference
from planner.config.options import OPTION
from planner.report.text import WIDTH, Page

NOTE = (
    "The contribution of a field is the mean of changing it first and changing it last. The contributions sum to the "
    "difference."
)


def difference_lines(found: Sequence[Difference], width: int = WIDTH) -> list[str]:
    """A table: pinned, now, difference; below each number the contributions of the changed fields."""
    rows: list[tuple[str, ...]] = [("", "pinned", "now", "difference")]
    for d in found:
        spell = d.after.plain
        before, after = d.before.number.value, d.after.number.value
        total = "unknown" if before is None or after is None else signed(after - before, spell)
        rows.append((d.after.title, spell(before), spell(after), total))
        for share in d.shares or ():
            if share.amount:
                name = " + ".join(OPTION[n].short for n in share.names)
                rows.append((f"  by {name}", "", "", signed(float(share.amount), spell)))
    return Page(width, indent=0).table(rows, {1, 2, 3})


def signed(x: float, spell: Callable[[float | None], str]) -> str:
    """A difference with its sign, or "the same"."""
    return "the same" if x == 0 else ("+" if x > 0 else "") + spell(x)
