"""`gptplan groups`: which parameters share a learning rate and a weight decay."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from gptplan.flags import AsJson


def groups(
    config: Annotated[Path | None, typer.Argument(metavar="RUN_TOML", help="The config to show.")] = None,
    json: AsJson = False,
) -> None:
    """Show the optimizer's parameter groups: rule, factor of the learning rate, weight decay, tensors, parameters.

    Without [[optimizer.groups]] there are two: matrices with weight decay, and vectors without.
    """
    from gptplan.output import columns, show, show_json
    from planner.counts.groups import parameter_groups
    from planner.errors import InputError
    from planner.inputs.run_toml import load_config

    if config is None:
        raise InputError(
            "the config is missing",
            why="groups are those of a run.toml",
            remedy="write one with: gptplan plan --params 125M --tokens 10B -o run.toml",
        )
    found = parameter_groups(load_config(config))
    if json:
        show_json({"groups": [asdict(group) for group in found]})
    else:
        from planner.report.groups import groups_text

        show(groups_text(found, columns()))
