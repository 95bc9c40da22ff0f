"""A text plot of points, without colour, so that it can be pasted."""

from __future__ import annotations

from collections.abc import Sequence

from planner.units import format_number

HEIGHT = 12
NARROWEST = 8


def scatter(points: Sequence[tuple[float, float]], *, x: str, y: str, width: int, plain: bool = False) -> list[str]:
    """Lines of at most `width` characters with a mark for each point, both axes from their least to their greatest.

    x, y: names of the axes. plain: ASCII only. The marks are letters in the order of the points, then a star.
    """
    across, up = [point[0] for point in points], [point[1] for point in points]
    labels = [format_number(value, 3) for value in (max(up), min(up))]
    margin = max(map(len, labels))
    columns = max(NARROWEST, width - margin - 4)
    cells = [[" "] * columns for _ in range(HEIGHT)]
    for number in reversed(range(len(points))):  # where two share a place the first is seen
        column, row = _place(across, number, columns), HEIGHT - 1 - _place(up, number, HEIGHT)
        cells[row][column] = chr(ord("a") + number) if number < 26 else "*"
    bar, tick, corner, line = ("|", "+", "+", "-") if plain else ("│", "┤", "└", "─")
    found = [f"  {y}"]
    for row, drawn in enumerate(cells):
        label = labels[0] if row == 0 else labels[1] if row == HEIGHT - 1 else ""
        found.append(f"  {label:>{margin}} {tick if label else bar}{''.join(drawn)}".rstrip())
    left, right = format_number(min(across), 3), f"{format_number(max(across), 3)} {x}"
    axis = [f"{corner}{line * columns}", f" {left}{right:>{columns - len(left)}}"]
    return [*found, *(f"  {'':>{margin}} {text}" for text in axis)]


def _place(values: Sequence[float], number: int, cells: int) -> int:
    """The cell of a value between the least and the greatest."""
    least, most = min(values), max(values)
    return round((values[number] - least) / (most - least) * (cells - 1)) if most > least else 0
