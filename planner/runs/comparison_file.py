"""comparison.json of a run directory."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from planner.errors import FileError
from planner.files import read_text
from planner.paths import exists, is_folder
from planner.runs.comparison import Comparison, ComparisonRow
from planner.runs.directory import COMPARISON


def load_comparison(directory: Path) -> Comparison:
    """The comparison that a run wrote.

    Raises FileError if there is none, or it is damaged or has another version.
    """
    if not is_folder(directory):
        raise FileError(
            f"{directory} is not a run directory",
            why="it is no directory" if exists(directory) else "it does not exist",
            remedy="give the RUN_DIR of gptplan run --out",
        )
    path = directory / COMPARISON
    if not exists(path):
        raise FileError(
            f"{directory} has no {COMPARISON}",
            why="the run has not come to its comparison yet, or this is no run directory",
            remedy=f"finish it with: gptplan run --resume {directory}",
        )
    try:
        return _comparison(json.loads(read_text(path)))
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise FileError(
            f"{path} is damaged", why=str(error), remedy=f"make it anew: gptplan run --resume {directory}"
        ) from None


def _comparison(values: dict[str, Any]) -> Comparison:
    if values["schema_version"] != 1:
        raise ValueError(f"schema_version is {values['schema_version']!r}, this version reads 1")
    rows = tuple(ComparisonRow(**row) for row in values["rows"])
    return Comparison(**{**values, "rows": rows})
