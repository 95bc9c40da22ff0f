"""Rules and constants read from data files: roofline efficiencies, batch and learning rate by size, usual ranges."""

from __future__ import annotations

import tomllib
from functools import cache
from typing import Any

from planner.presets import PRESETS


@cache
def rules(name: str) -> dict[str, Any]:
    """The table `presets/rules/<name>.toml`; a file of ours, so a missing one is our mistake."""
    with (PRESETS / "rules" / f"{name}.toml").open("rb") as file:
        return tomllib.load(file)


def row_of_size(parameters: float) -> dict[str, Any]:
    """The published batch and peak rate of the model that is nearest in size, with `source` and its spread."""
    table = rules("by-size")
    row = min(table["row"], key=lambda r: max(r["parameters"] / parameters, parameters / r["parameters"]))
    return {"source": table["source"], "spread": table["spread"], **row}


def roofline_of(gpu: str) -> dict[str, Any]:
    """Roofline constants of a GPU: its family's, else those for any card, with the wider interval."""
    table = rules("roofline")
    for family in table["family"]:
        if gpu in family["gpus"]:
            return dict(family)
    return dict(table["any"])
