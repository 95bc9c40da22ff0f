"""Text plots: Braille dots for one curve, one mark per curve for several, ASCII if the terminal needs it.

They have no colour, so they can be pasted.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from planner.units import format_number

BRAILLE = 0x2800
DOTS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))  # [row of 4][column of 2] of one character
CURVE_MARKS = "●▲■◆○△□◇"
ASCII_MARKS = "*o+x#@%&"
ALL_CHARACTERS = CURVE_MARKS + "⣿┤│└─┬"  # what a terminal must know


def plot(
    rates: Sequence[Callable[[int], float]],
    last: int,
    *,
    width: int,
    height: int = 12,
    plain: bool = False,
    floor: float = 0.0,
) -> list[str]:
    """Lines of at most `width` characters that show each rate from step 0 to `last`, from `floor` to the highest peak.

    floor: no value is below it, and the highest is above it. plain: ASCII only. If several curves coincide, their
    marks alternate. At most eight curves.
    """
    braille = len(rates) == 1 and not plain
    across, down = (2, 4) if braille else (1, 1)
    samples = [[rate(k) for k in _steps(last, 2 * max(width, 8))] for rate in rates]
    top = max(max(values) for values in samples)
    labels = [format_number(floor + (top - floor) * (height - 1 - i) / (height - 1), 3)
              if i % 4 == 0 or i == height - 1 else "" for i in range(height)]  # fmt: skip
    margin = max(map(len, labels))
    columns = max(8, width - margin - 4)
    steps = _steps(last, columns * across)
    cells: dict[tuple[int, int], int] = {}
    for number, rate in enumerate(rates):
        for row, column in _dots([rate(k) - floor for k in steps], top - floor, height * down):
            if braille:
                key = (row // 4, column // 2)
                cells[key] = cells.get(key, 0) | DOTS[row % 4][column % 2]
            elif (row, column) not in cells or column % len(rates) == number:
                cells[row, column] = number
    marks = ASCII_MARKS if plain else CURVE_MARKS
    bar, tick = ("|", "+") if plain else ("│", "┤")
    lines = []
    for i, label in enumerate(labels):
        found = [cells.get((i, j)) for j in range(columns)]
        drawn = "".join(" " if c is None else chr(BRAILLE + c) if braille else marks[c] for c in found)
        lines.append(f"  {label:>{margin}} {tick if label else bar}{drawn}".rstrip())
    return [*lines, *_axis(last, margin, columns, plain)]


def legend(labels: Sequence[str], *, plain: bool = False) -> str:
    """The mark of each of several curves."""
    return "   ".join(
        f"{mark} {label}" for mark, label in zip(ASCII_MARKS if plain else CURVE_MARKS, labels, strict=False)
    )


def _steps(last: int, count: int) -> list[int]:
    return [last * i // (count - 1) for i in range(count)]


def _dots(values: Sequence[float], top: float, rows: int) -> list[tuple[int, int]]:
    """The dots of a curve, steep parts filled; row 0 is the top."""
    heights = [rows - 1 - round(value / top * (rows - 1)) for value in values]
    dots = []
    for column, row in enumerate(heights):
        before = heights[column - 1] if column else row
        between = range(before + 1, row) if before < row else range(row + 1, before)
        dots += [(r, column) for r in (row, *between)]
    return dots


def _axis(last: int, margin: int, columns: int, plain: bool) -> list[str]:
    corner, line, notch = ("+", "-", "+") if plain else ("└", "─", "┬")
    half = columns // 2
    rule = line * half + notch + line * (columns - half - 1)
    numbers = _spread(columns, "0", f"{last // 2:,}", f"{last:,}")
    return [f"  {'':>{margin}} {corner}{rule}", f"  {'':>{margin}}  {numbers}"]


def _spread(columns: int, left: str, middle: str, right: str) -> str:
    """Texts at the left end, the middle and the right end of a line; the middle one is left out if there is no room."""
    numbers = left.ljust(columns // 2 - len(middle) // 2) + middle
    if len(numbers) + len(right) + 1 > columns:
        numbers = left
    return numbers.ljust(max(columns - len(right), len(numbers) + 1)) + right


def with_second_scale(lines: Sequence[str], left: str, middle: str, right: str) -> list[str]:
    """A plot with one more line of numbers under its axis."""
    start, columns = _ground(lines)
    return [*lines, " " * start + _spread(columns, left, middle, right)]


def with_cursor(lines: Sequence[str], step: int, last: int) -> list[str]:
    """A plot with a vertical line at a step, behind the curve, and a mark on the axis."""
    start, columns = _ground(lines)
    column = start + round(step / last * (columns - 1))
    found = []
    for line in lines[:-2]:
        here = line.ljust(column + 1)
        found.append(here[:column] + ("╎" if here[column] == " " else here[column]) + here[column + 1 :])
    return [*found, lines[-2][:column] + "▲" + lines[-2][column + 1 :], lines[-1]]


def _ground(lines: Sequence[str]) -> tuple[int, int]:
    """First column and number of columns of a plot's axis."""
    axis = lines[-2]
    start = len(axis) - len(axis.lstrip()) + 1
    return start, len(axis) - start
