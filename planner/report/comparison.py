"""Comparisons as text for people: predicted beside measured, with the ratio and the verdict."""

from __future__ import annotations

from collections.abc import Sequence

from planner.report.text import BASES, table, wrap
from planner.runs.comparison import Comparison, ComparisonRow
from planner.units import (
    format_count_exact,
    format_duration,
    format_number,
    format_rate,
)

COLUMNS = ("", "predicted", "measured", "measured/predicted", "tolerance", "verdict")
ROW_VERDICTS = {"within": "✓ within", "outside": "✗ OUTSIDE", "unknown": "? unknown"}


def comparison_lines(comparison: Comparison) -> str:
    """Predicted beside measured, line by line; saved bytes by operator only where one is outside."""
    rows: list[tuple[str, ...]] = [COLUMNS]
    shown = [r for r in comparison.rows if not r.key.startswith("saved.") or r.verdict == "outside"]
    rows += [comparison_row(row) for row in shown]
    within = sum(r.verdict == "within" for r in comparison.rows)
    outside = sum(r.verdict == "outside" for r in comparison.rows)
    head = f"Predicted and measured on {comparison.device_name}, torch {comparison.torch}"
    basis = f"time predicted {BASES[comparison.basis]}"
    tail = f"  {within} lines within tolerance, {outside} outside; {basis}"
    operators = sum(r.key.startswith("saved.") for r in comparison.rows)
    if operators:
        tail += f"; {operators} operators' saved bytes compared one by one"
    return "\n".join([head, *table(rows, right=frozenset({1, 2, 3, 4})), tail])


def comparison_within(comparison: Comparison, width: int) -> str:
    """The comparison in at most `width` columns: what is outside first, each line begun by its verdict's sign."""
    head, *_, tail = comparison_lines(comparison).splitlines()
    order = ("outside", "unknown", "within")
    shown = [r for r in comparison.rows if not r.key.startswith("saved.") or r.verdict == "outside"]
    cells = [comparison_row(row) for row in sorted(shown, key=lambda r: order.index(r.verdict))]
    rows = [("", "predicted", "measured", "ratio", "tolerance")]
    rows += [(f"{c[5][0]} {c[0]}", _short(c[1]), _short(c[2]), c[3], c[4]) for c in cells]
    lines = _no_wider(rows, width)
    return "\n".join([*wrap(head, indent=0, width=width), *lines, *wrap(tail.strip(), indent=0, width=width)])


def _short(value: str) -> str:
    """A speed without its thing, which the line's name says."""
    return value.replace(" tokens/s", " /s")


def _no_wider(rows: Sequence[tuple[str, ...]], width: int) -> list[str]:
    """A table with as many of the columns as there is room for; the numbers on a line of their own as the last way."""
    for columns in (5, 4, 3):
        lines = [line[2:] for line in table([r[:columns] for r in rows], right=frozenset({1, 2, 3, 4}))]
        if max(map(len, lines)) <= width:
            return lines
    return [part for r in rows[1:] for part in (r[0], f"    {r[1]} → {r[2]}  {r[3]}".rstrip())]


def comparison_row(row: ComparisonRow) -> tuple[str, ...]:
    """The cells of a row, under the names of `COLUMNS`."""
    tolerance = "exact" if row.tolerance == 0 else f"±{format_number(100 * row.tolerance)} %"
    ratio = "" if row.ratio is None else f"{row.ratio:.4f}"
    infinite = row.measured is None and row.verdict == "outside"
    cells = (_value(row.predicted, row.unit), "not finite" if infinite else _value(row.measured, row.unit))
    return (row.key, *cells, ratio, tolerance, ROW_VERDICTS[row.verdict])


def _value(value: float | int | str | None, unit: str) -> str:
    if value is None:
        return "unknown"
    if isinstance(value, str):
        return value
    if unit in ("byte", "FLOP") or (unit == "1" and isinstance(value, int)):
        return format_count_exact(value)
    if unit == "s":
        return format_duration(value)
    if unit == "token/s":
        return format_rate(value)
    return format_number(value)


def comparison_markdown(comparison: Comparison, title: str, facts: Sequence[tuple[str, str]]) -> str:
    """report.md: circumstances, then every row as a GitHub table."""
    lines = [f"# {title}", ""]
    lines += [f"- {name}: {value}" for name, value in facts]
    lines += ["", "| | predicted | measured | measured/predicted | tolerance | verdict |", "|---|--:|--:|--:|--:|---|"]
    lines += ["| " + " | ".join(comparison_row(row)) + " |" for row in comparison.rows]
    lines += ["", f"Time was predicted {BASES[comparison.basis]}."]
    return "\n".join(lines) + "\n"
