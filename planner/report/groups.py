"""Parameter groups as a table for people."""

from __future__ import annotations

from planner.counts.groups import ParameterGroup
from planner.report.text import WIDTH, Page
from planner.units import format_count


def groups_text(groups: tuple[ParameterGroup, ...], width: int = WIDTH) -> str:
    """One line per group: rule, optimizer, factor on the learning rate, decay, sizes, and the first names."""
    rows = [("group", "optimizer", "lr", "decay", "tensors", "parameters", "examples")]
    for g in groups:
        more = ", …" if g.tensors > len(g.examples) else ""
        sizes = (f"{g.tensors:,}", f"{g.parameters:,}")
        rows.append((g.rule, g.optimizer, f"x {g.rate:g}", f"{g.weight_decay:g}", *sizes, ", ".join(g.examples) + more))
    total = sum(g.parameters for g in groups)
    rows.append(("all", "", "", "", f"{sum(g.tensors for g in groups):,}", f"{total:,}", format_count(total)))
    return "\n".join(Page(width).table(rows, {2, 3, 4, 5}))
