"""`gptplan explain`: where a number of the plan comes from, and the calculations of training math."""

from __future__ import annotations

from typing import Annotated

import typer

from gptplan.flags import AsJson, AsOf, ConfigFile
from planner.inputs.flags import Flags

Key = Annotated[
    str | None,
    typer.Argument(metavar="[KEY]", help="A key of estimate --json, or the number or name of a calculation."),
]
Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="NAME=VALUE", help="Set an argument of a calculation; separate the values of a list by commas."
    ),
]
Listed = Annotated[bool, typer.Option("--list", help="Show every key that can be explained.")]


def explain(
    flags: Flags,
    key: Key = None,
    settings: Set = None,
    listed: Listed = False,
    config: ConfigFile = None,
    as_of: AsOf = None,
    json: AsJson = False,
) -> None:
    """Explain a number: formula, numbers, unit, source, assumptions, and what it is checked against.

    Example: gptplan explain cost.usd --params 125M --tokens 10B
    """
    from gptplan.explaining import explain_calculation, explain_leaf, show_list
    from planner.analysis.textbook.catalogue import find
    from planner.errors import InputError

    if listed:
        if key is not None or settings:
            raise InputError(
                "--list takes no key and no --set",
                why="it lists every key",
                remedy="write gptplan explain --list, or gptplan explain KEY",
            )
        show_list(flags, config, as_of, json)
        return
    if key is None:
        raise InputError(
            "the key is missing",
            why="one number is explained at a time",
            remedy="list all keys: gptplan explain --list",
        )
    calculation = find(key)
    if calculation is not None:
        explain_calculation(calculation, settings or [], planned=flags.anything() or config is not None, json=json)
    else:
        explain_leaf(key, flags, config, as_of, changed=bool(settings), json=json)
