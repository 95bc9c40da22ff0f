"""`gptplan trace`: every predicted peak beside the same steps replayed by PyTorch on tensors without contents."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gptplan.flags import AsJson


def trace(
    config: Annotated[Path | None, typer.Argument(metavar="RUN_TOML", help="The config to simulate.")] = None,
    layers: Annotated[
        str | None,
        typer.Option(
            "--layers", metavar="all|few", help="Simulate all blocks, or few and extrapolate; default by depth."
        ),
    ] = None,
    json: AsJson = False,
) -> None:
    """Replay two steps of a run.toml in PyTorch on fake tensors (no data, no GPU), and compare each phase's peak.

    Of more than 12 blocks only a few are replayed, and peaks are extrapolated linearly, unless --layers all is given.
    """
    from gptplan.extras import need_torch
    from gptplan.output import columns, show, show_json
    from planner.errors import InputError, UnknownNameError
    from planner.inputs.run_toml import load_config

    if config is None:
        raise InputError(
            "the config is missing",
            why="a replay needs a run.toml",
            remedy="write one with: gptplan plan --params 125M --tokens 10B -o run.toml",
        )
    depths = {None: None, "all": True, "few": False}
    if layers not in depths:
        raise UnknownNameError("--layers", str(layers), ["all", "few"])
    loaded = load_config(config)
    need_torch("a replay")
    from reference_trainer.distributed.ranks import refuse_ranks

    refuse_ranks("trace")
    from planner.analysis.replay import trace_document
    from reference_trainer.measure.replay_report import traced

    report = traced(loaded, depths[layers])
    if json:
        show_json(trace_document(report))
    else:
        from planner.report.replay import trace_text

        show(trace_text(report, columns()))
