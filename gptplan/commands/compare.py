"""`gptplan compare`: the comparison of a finished run, of another trainer's log, or of a profiler's trace."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gptplan.flags import AsJson


def compare(
    directory: Annotated[Path | None, typer.Argument(metavar="RUN_DIR", help="Directory of a run.")] = None,
    log: Annotated[
        Path | None,
        typer.Option("--log", metavar="FILE", help="What another trainer printed, or a trainer_state.json."),
    ] = None,
    profile: Annotated[
        Path | None,
        typer.Option("--profile", metavar="TRACE", help="Trace of PyTorch's profiler: .json or .json.gz."),
    ] = None,
    config: Annotated[
        Path | None, typer.Option("--config", metavar="RUN_TOML", help="The plan of --log or --profile.")
    ] = None,
    of: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar="ENGINE",
            help="Whose log it is: nanogpt, nanochat, torchtitan, megatron-lm, litgpt, llm.c or hf-trainer; "
            "found by its lines if absent.",
        ),
    ] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Exit 1 when a line is outside its tolerance.")] = False,
    strict_time: Annotated[bool, typer.Option("--strict-time", help="Like --strict, but time must agree too.")] = False,
    json: AsJson = False,
) -> None:
    """Compare the predicted and the measured numbers of a run. With --strict a difference fails.

    --log sets what another trainer printed beside the plan of --config; --profile sets the kernels of a trace beside
    the plan's parts, the worst first.
    """
    from gptplan.comparing import comparison_of
    from gptplan.output import log_line, show, show_json

    found = comparison_of(directory, log, profile, config, of)
    if json:
        show_json(found.values)
    else:
        show(found.text)
    outside = [] if found.comparison is None else found.comparison.outside(timing=strict_time)
    if (strict or strict_time) and outside:
        log_line(f"outside tolerance: {', '.join(row.key for row in outside)}")
        raise typer.Exit(1)
