"""`gptplan demo`: the whole corridor on this machine in a few minutes."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer

from gptplan.flags import path_to_write


def demo(
    minutes: Annotated[str, typer.Option("--minutes", metavar="N", help="Approximate training time.")] = "2",
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="DIR", parser=path_to_write, help="New directory; default runs/demo-<time>."),
    ] = None,
) -> None:
    """Train a small model sized to this machine on real text, and compare with the predictions."""
    from gptplan import __version__
    from gptplan.extras import need_torch
    from gptplan.output import log_line, show_if_possible
    from planner.report.comparison import comparison_lines
    from planner.units import parse_number

    length = parse_number(minutes, name="--minutes")
    need_torch("the demo")
    from reference_trainer.distributed.ranks import refuse_ranks

    refuse_ranks("demo")
    directory = out or Path("runs") / f"demo-{datetime.now():%Y%m%d-%H%M%S}"
    from reference_trainer.demo import demo as run_demo

    outcome = run_demo(length, directory, __version__, log_line)
    if outcome.comparison is not None:
        show_if_possible(comparison_lines(outcome.comparison))
        show_if_possible(f"config: {directory / 'run.toml'}\nreport: {directory / 'run' / 'report.md'}")
    raise typer.Exit(outcome.exit_code)
