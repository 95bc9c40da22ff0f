"""Comparisons as text for people: predicted and measured, with ratio and verdict."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from planner.report.text import BASES, WIDTH, Page
from planner.runs.comparison import Comparison, ComparisonRow
from planner.units import (
    format_bytes,
    format_count_exact,
    format_duration,
    format_flops,
    format_fraction,
    format_number,
    format_rate,
    told_apart,
)

COLUMNS = ("", "predicted", "measured", "measured/predicted", "tolerance", "verdict")
ROW_VERDICTS = {"within": "✓ within", "outside": "✗ OUTSIDE", "unknown": "? unknown"}
SPELLED: dict[str, Callable[..., str]] = {
    "byte": format_bytes,
    "FLOP": format_flops,
    "s": format_duration,
    "token/s": format_rate,
}
RIGHT = frozenset({1, 2, 3, 4})


def comparison_lines(comparison: Comparison, width: int = WIDTH) -> str:
    """Predicted and measured, line by line; saved bytes by operator only if they are outside."""
    page = Page(width)
    rows = [COLUMNS, *(comparison_row(row) for row in _shown(comparison))]
    return page.section(_title(comparison), *page.table(rows, RIGHT), *page.sentence(_counts(comparison)))


def comparison_within(comparison: Comparison, width: int) -> str:
    """The comparison in at most `width` columns: first the rows outside, each line with the sign of its verdict."""
    page, order = Page(width, indent=0), ("outside", "unknown", "within")
    cells = [comparison_row(row) for row in sorted(_shown(comparison), key=lambda r: order.index(r.verdict))]
    rows = [("", "predicted", "measured", "ratio", "tolerance")]
    rows += [(f"{c[5][0]} {c[0]}", _short(c[1]), _short(c[2]), c[3], c[4]) for c in cells]
    lines = page.narrowed(rows, RIGHT, fewest=3)
    if lines is None:  # the numbers on a line of their own as the last way
        lines = [part for r in rows[1:] for part in (r[0], f"    {r[1]} → {r[2]}  {r[3]}".rstrip())]
    return "\n".join([*page.sentence(_title(comparison)), *lines, *page.sentence(_counts(comparison))])


def comparison_row(row: ComparisonRow) -> tuple[str, ...]:
    """The cells of a row, under the names of `COLUMNS`: three significant digits, in full if it must be exact.

    Numbers outside their tolerance get as many digits as it takes to tell them apart.
    """
    tolerance = "exact" if row.tolerance == 0 else f"±{format_fraction(row.tolerance)}"
    if row.key.endswith("_loss"):
        tolerance = ""  # shown, and never judged
    predicted, measured = _values(row)
    if row.measured is None and row.verdict == "outside":
        measured = "not finite"
    ratio = "" if row.ratio is None else told_apart(format_number, row.ratio, 1.0)[0]
    if row.verdict != "outside" and row.ratio is not None:
        ratio = format_number(row.ratio)
    return (row.key, predicted, measured, ratio, tolerance, ROW_VERDICTS[row.verdict])


def comparison_markdown(comparison: Comparison, title: str, facts: Sequence[tuple[str, str]]) -> str:
    """report.md: the circumstances, then all rows as a GitHub table."""
    lines = [f"# {title}", ""]
    lines += [f"- {name}: {value}" for name, value in facts]
    lines += ["", "| | predicted | measured | measured/predicted | tolerance | verdict |", "|---|--:|--:|--:|--:|---|"]
    lines += ["| " + " | ".join(comparison_row(row)) + " |" for row in comparison.rows]
    lines += ["", f"Time was predicted {BASES[comparison.basis]}."]
    return "\n".join(lines) + "\n"


def _shown(comparison: Comparison) -> list[ComparisonRow]:
    return [r for r in comparison.rows if not r.key.startswith("saved.") or r.verdict == "outside"]


def _title(comparison: Comparison) -> str:
    version = f", torch {comparison.torch}" if comparison.torch else ""
    return f"Predicted and measured on {comparison.device_name}{version}"


def _counts(comparison: Comparison) -> str:
    within, outside = (sum(r.verdict == v for r in comparison.rows) for v in ("within", "outside"))
    operators = sum(r.key.startswith("saved.") for r in comparison.rows)
    compared = f"; saved bytes of {operators} operators compared one by one" if operators else ""
    basis = f"time predicted {BASES[comparison.basis]}"
    return f"{within} lines within tolerance, {outside} outside; {basis}{compared}"


def _short(value: str) -> str:
    """A speed without its unit, which the line's name says."""
    return value.replace(" tokens/s", " /s")


def _values(row: ComparisonRow) -> tuple[str, str]:
    """Predicted and measured as text."""
    predicted, measured = row.predicted, row.measured
    if isinstance(predicted, str) or isinstance(measured, str):
        return str(predicted or "unknown"), str(measured or "unknown")
    if row.tolerance == 0 and all(value is None or value == int(value) for value in (predicted, measured)):
        return format_count_exact(predicted), format_count_exact(measured)
    spell = SPELLED.get(row.unit, format_number)
    if row.verdict == "outside":
        first, second = told_apart(spell, predicted, measured)
        return first, second
    return spell(predicted), spell(measured)
