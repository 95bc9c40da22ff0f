"""Explanations and calculations as text and as JSON, and the list of all of them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from planner.analysis.explain.explanation import Explanation, quantity_of
from planner.analysis.explain.symbolic import as_json, equation_of, rendered, with_numbers
from planner.analysis.textbook.catalogue import calculations
from planner.analysis.textbook.register import Calculation
from planner.analysis.textbook.vocabulary import quantity
from planner.report.text import WIDTH, Page
from planner.units import LARGEST_PLAIN, READ_BACK

LABEL, DEEPEST = 14, 4  # columns of a label; levels of parts below a number
MOST_DIGITS = 15  # of an exact number: nobody reads more


def explanation_text(found: Explanation, width: int = WIDTH) -> str:
    """A plan's number explained, for people; sentences are wrapped to `width` columns."""
    lines = [f"{found.key} = {_number(found.value)} {_unit(found.unit)}".rstrip()]
    lines += _labelled("what", found.meaning, width=width)
    pretty, latex = equation_of(found)
    if pretty:
        lines += _labelled("formula", f"{found.formula or 'sum'}", *pretty.splitlines())
        lines += _unwrapped("LaTeX", latex)
        lines += _unwrapped("numbers", f"{with_numbers(found, _digits)} = {_number(found.value)}")
        lines += _labelled("where", *_where(found.arguments, width - LABEL))
    lines += _labelled("source", found.source, width=width)
    lines += _labelled("defaults", *(f"{a.key} = {a.value} ({a.source})" for a in found.assumptions), width=width)
    lines += _labelled("checked by", found.checked_against, width=width)
    lines += [line for part in found.parts for line in _part(part, 1, width)]
    return "\n".join(lines)


def calculation_text(found: Calculation, values: Mapping[str, Any], results: Mapping[str, Any]) -> str:
    """A calculation explained, with its results, for people."""
    lines = [f"{found.id} {found.name}: {found.question}{', with the values below' if values else ''}"]
    for name, value in results.items():
        entry = quantity(name)
        lines.append(f"  {name} = {shown(value)} {_unit(entry.unit)}".rstrip() + f"   {entry.meaning}")
    arguments = found.defaults | dict(values)
    lines += _labelled("with", *(f"{n} = {shown(v)}   {quantity(n).meaning}" for n, v in arguments.items()))
    equations = _equations(found, values)
    for name, (pretty, latex) in equations.items():
        lines += _labelled("formula", name, *pretty.splitlines())
        lines += _unwrapped("LaTeX", latex)
    lines += _labelled("formula", _cut(found, values, bool(equations)))
    lines += _labelled("why", found.explanation)
    lines += _labelled("source", found.source)
    lines += _labelled("checked by", found.checked_against)
    return "\n".join(lines)


def calculation_json(found: Calculation, values: Mapping[str, Any], results: Mapping[str, Any]) -> dict[str, Any]:
    """A calculation as plain values; a number that is not finite is text."""
    arguments = found.defaults | dict(values)
    equations = _equations(found, values)
    return {
        "id": found.id,
        "name": found.name,
        "question": found.question,
        "arguments": {name: _plain(value) for name, value in arguments.items()},
        "results": {name: _plain(value) for name, value in results.items()},
        "units": {name: quantity(name).unit for name in (*arguments, *results)},
        "meanings": {name: quantity(name).meaning for name in (*arguments, *results)},
        "formulas": {name: {"pretty": pretty, "latex": latex} for name, (pretty, latex) in equations.items()},
        "explanation": found.explanation,
        "source": found.source,
        "checked_against": found.checked_against,
    }


def list_text(keys: Iterable[str], plan: str) -> str:
    """Every key that can be explained: the calculations, then the numbers of a plan."""
    lines = ["Calculations: gptplan explain NUMBER or NAME, --set ARGUMENT=VALUE changes one"]
    lines += [f"  {c.id:<6}{c.name:<28}{c.question}" for c in calculations()]
    lines += ["", f"Numbers of {plan}: gptplan explain KEY and the flags of estimate"]
    lines += [f"  {key}" for key in keys]
    return "\n".join(lines)


def key_lines(values: Mapping[str, float]) -> dict[str, str]:
    """One line per key: name and number."""
    return {key: f"{key} = {shown(value)}" for key, value in values.items()}


def list_json(keys: Iterable[str], plan: str) -> dict[str, Any]:
    """The same as plain values."""
    found = [{"id": c.id, "name": c.name, "question": c.question} for c in calculations()]
    return {"calculations": found, "plan": plan, "keys": list(keys)}


__all__ = [
    "as_json",
    "calculation_json",
    "calculation_text",
    "explanation_text",
    "key_lines",
    "list_json",
    "list_text",
    "shown",
]


def _cut(found: Calculation, values: Mapping[str, Any], written: bool) -> str:
    """That formulas show a part of a long vector, or none for it; "" where they are whole."""
    from planner.analysis.textbook.symbolic import SHOWN, cut_short

    names = " and ".join(cut_short(found, values))
    if not names or not found.arithmetic:
        return ""
    return f"written for the first {SHOWN} entries of {names}" if written else f"none is written for so long {names}"


def _equations(found: Calculation, values: Mapping[str, Any]) -> dict[str, tuple[str, str]]:
    import sympy  # 0.25 s, which explaining pays

    from planner.analysis.textbook.symbolic import formulas_of

    def expression(value: Any) -> Any:
        if not isinstance(value, list):
            return value
        return sympy.Matrix(value if isinstance(value[0], list) else [[entry] for entry in value])

    formulas, _ = formulas_of(found, values)
    return {name: rendered(quantity(name).symbol, expression(value)) for name, value in formulas.items()}


def _part(found: Explanation, depth: int, width: int) -> Iterator[str]:
    """An argument that is itself a result, in two lines, with its own parts below."""
    indent = "  " * depth
    yield f"{indent}└ {found.key} = {_number(found.value)} {_unit(found.unit)}   {found.formula or found.origin}"
    text = with_numbers(found, _digits) if len(found.arguments) > 1 or found.function else found.meaning
    said = f"{text if len(text) <= width else found.meaning} ({found.source})"
    yield from Page(width).sentence(said, len(indent) + 4)
    if depth < DEEPEST:
        for part in found.parts:
            yield from _part(part, depth + 1, width)


def _where(arguments: Mapping[str, float], width: int) -> list[str]:
    """One line per argument; if one is too long, the meaning is below its number."""
    entries = [(quantity_of(name), name, value) for name, value in arguments.items()]
    widths = [max((len(text) for text in column), default=0) for column in zip(
        *((q.symbol, _number(value), _unit(q.unit)) for q, _, value in entries), strict=True
    )]  # fmt: skip
    heads = [f"{q.symbol:<{widths[0]}}  {_number(value):>{widths[1]}} {_unit(q.unit):<{widths[2]}}"
             for q, _, value in entries]  # fmt: skip
    meanings = [f"{name}: {q.meaning}" for q, name, _ in entries]
    if all(len(head) + 2 + len(meaning) <= width for head, meaning in zip(heads, meanings, strict=True)):
        return [f"{head}  {meaning}" for head, meaning in zip(heads, meanings, strict=True)]
    indent = widths[0] + 2
    return [
        line
        for head, meaning in zip(heads, meanings, strict=True)
        for line in (head, *Page(width).sentence(meaning, indent))
    ]


def _labelled(label: str, *texts: str, width: int = WIDTH) -> list[str]:
    """A label and its lines, wrapped; nothing without text."""
    lines: list[str] = []
    beside = Page(width - LABEL, indent=0)
    for text in filter(None, texts):
        plain = len(text) <= beside.width or "  " in text
        lines += [text] if plain else beside.sentence(text)
    return [f"  {label if i == 0 else '':<{LABEL - 2}}{line}".rstrip() for i, line in enumerate(lines)]


def _unwrapped(label: str, text: str) -> list[str]:
    """A line that is not wrapped, so that it can be copied."""
    return [f"  {label:<{LABEL - 2}}{text}"]


def _unit(unit: str) -> str:
    return "" if unit == "1" else unit


def _number(value: float) -> str:
    """`_digits`, a whole number with commas."""
    return f"{value:,}" if isinstance(value, int) and abs(value) < LARGEST_PLAIN else _digits(value)


def _digits(value: float) -> str:
    """All digits, up to MOST_DIGITS."""
    if isinstance(value, int):
        return str(value) if abs(value) < LARGEST_PLAIN else f"{value:.{READ_BACK}g}"
    digits = repr(value).partition("e")[0].replace(".", "").lstrip("-0")
    return repr(value) if len(digits) <= MOST_DIGITS else f"{value:.{MOST_DIGITS}g}"


def shown(value: Any) -> str:
    """A number to ten digits, a vector with commas, a matrix with semicolons: as `--set` takes them."""
    if isinstance(value, Mapping):
        return ", ".join(f"{name}: {shown(inner)}" for name, inner in value.items())
    if isinstance(value, list | tuple):
        return ("; " if value and isinstance(value[0], list | tuple) else ", ").join(shown(v) for v in value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    long = isinstance(value, int) and abs(value) >= LARGEST_PLAIN
    return f"{value:.{READ_BACK}g}" if isinstance(value, float) or long else str(value)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _plain(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
