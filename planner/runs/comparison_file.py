"""comparison.json of a run directory."""

from __future__ import annotations

from pathlib import Path

from pydantic import TypeAdapter

from planner.errors import FileError
from planner.files import read_bytes
from planner.json_input import checked_by, parsed_json
from planner.paths import exists, is_folder
from planner.runs.comparison import Comparison
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
    content = read_bytes(path)
    try:
        found = checked_by(TypeAdapter(Comparison), parsed_json(content))
        if found.schema_version != 1:
            raise ValueError(f"schema_version is {found.schema_version}, this version reads 1")
        return found
    except ValueError as error:
        remedy = f"delete it, then make it anew: gptplan run --resume {directory}"
        raise FileError(f"{path} is damaged", why=str(error), remedy=remedy) from None
