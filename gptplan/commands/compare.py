"""`gptplan compare`: shows the comparison of a finished run again."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gptplan.flags import AsJson


def compare(
    directory: Annotated[Path, typer.Argument(metavar="RUN_DIR", help="Directory of a run.")],
    strict: Annotated[bool, typer.Option("--strict", help="Exit 1 when a line is outside its tolerance.")] = False,
    strict_time: Annotated[bool, typer.Option("--strict-time", help="Like --strict, but time must agree too.")] = False,
    json: AsJson = False,
) -> None:
    """Compare the predicted and the measured numbers of a run. With --strict a difference fails."""
    from gptplan.output import log_line, show, show_json
    from planner.report.comparison import comparison_lines
    from planner.runs.comparison_file import load_comparison

    comparison = load_comparison(directory)
    if json:
        from dataclasses import asdict

        show_json(asdict(comparison))
    else:
        show(comparison_lines(comparison))
    outside = comparison.outside(timing=strict_time)
    if (strict or strict_time) and outside:
        log_line(f"outside tolerance: {', '.join(row.key for row in outside)}")
        raise typer.Exit(1)
