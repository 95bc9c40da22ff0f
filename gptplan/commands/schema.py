"""`gptplan schema`: the JSON Schemas of the files and of what is printed with --json."""

from __future__ import annotations

from typing import Annotated

import typer


def schema(
    name: Annotated[
        str,
        typer.Argument(
            metavar="config|plan|batch|schedule|flops|trace|comparison|preflight|lr-find|all", help="Which schema."
        ),
    ] = "all",
) -> None:
    """Print a JSON Schema: of run.toml, of a command's --json output, of a comparison, or all of them."""
    from gptplan.output import show_json
    from planner.errors import UnknownNameError
    from planner.report.schemas import schemas

    found = schemas()
    if name != "all" and name not in found:
        raise UnknownNameError("schema", name, [*found, "all"])
    show_json(found if name == "all" else found[name])
