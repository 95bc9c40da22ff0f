"""The assignments of a Python file, read and never run: numbers, text, true and false, lists, and sums and products."""

from __future__ import annotations

import ast
import math
import operator
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from planner.errors import FileError

_OPERATORS: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
}  # fmt: skip
MOST_NUMBER = 1e30


def assignments(text: str, path: Path) -> dict[str, Any]:
    """Name → value of the top-level assignments; a value that is computed otherwise is its own text.

    Raises FileError for what is no Python.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what the compiler thinks of somebody's style
            tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        why = str(error) or "it is nested too deep"
        raise FileError(f"{path} is no Python file", why=why, remedy="give the file as the engine reads it") from None
    found: dict[str, Any] = {}
    for node in tree.body:
        if isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(node.targets[0], ast.Name):
            try:
                found[node.targets[0].id] = _value(node.value, found)
            except (ValueError, TypeError, ArithmeticError, RecursionError):
                found[node.targets[0].id] = ast.get_source_segment(text, node.value) or "?"
    return found


def _value(node: ast.expr, names: dict[str, Any]) -> Any:
    if isinstance(node, ast.BinOp) and type(node.op) in _OPERATORS:
        left, right = _value(node.left, names), _value(node.right, names)
        if not all(isinstance(side, int | float) and abs(side) < MOST_NUMBER for side in (left, right)):
            raise ValueError(node)
        result = _OPERATORS[type(node.op)](left, right)
        if not math.isfinite(result):
            raise ValueError(node)
        return result
    if isinstance(node, ast.Name) and isinstance(names.get(node.id), int | float):
        return names[node.id]
    return ast.literal_eval(node)
