"""A plan as a file: JSON or Markdown, by the ending of its name."""

from __future__ import annotations

import json
from pathlib import Path

from planner.document import document
from planner.errors import FileError
from planner.report.markdown import markdown
from tui.session import PlanResult


def exported(result: PlanResult, command: str, path: Path) -> str:
    """The text of a plan. Raises FileError for an ending that is neither."""
    if path.suffix == ".json":
        return json.dumps(document(result.plan, result.findings), indent=2) + "\n"
    if path.suffix == ".md":
        return markdown(result.plan, result.findings, command)
    raise FileError(
        f"{path.name} does not end in .json or .md",
        why="the ending chooses the format",
        remedy="give a name such as plan.json or plan.md",
    )
