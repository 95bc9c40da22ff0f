"""Published models, by the keys of their config.json, have the parameters that their authors print."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from planner.counts.parameters import parameters_of
from planner.inputs.huggingface import hf_model_of
from planner.inputs.huggingface.remote import REMOTE_FAMILIES

FILE = Path(__file__).parents[2] / "published" / "data" / "hf_published.json"
PUBLISHED: list[dict[str, Any]] = json.loads(FILE.read_text(encoding="utf-8"))
COUNTS = ("total", "active", "embedding", "non_embedding")


def rounded(count: int, printed: str) -> Decimal:
    """The count with as many digits as the printed one has."""
    digits = len(Decimal(printed).as_tuple().digits)
    return Decimal(f"{count:.{digits - 1}e}")


@pytest.mark.parametrize("row", PUBLISHED, ids=lambda row: row["name"])
def test_the_parameters_are_the_printed_ones(row: dict[str, Any]) -> None:
    found = parameters_of(hf_model_of(row["config"], Path("config.json")).model)
    printed = {name: row[name] for name in COUNTS if name in row}
    assert printed and row["source"]
    assert {name: rounded(getattr(found, name), text) for name, text in printed.items()} == {
        name: Decimal(text) for name, text in printed.items()
    }


def test_types_with_code_of_their_own_are_checked_by_published_models_to_the_last_digit() -> None:
    exact = {r["config"]["model_type"] for r in PUBLISHED if any("e" not in r.get(n, "e") for n in COUNTS)}
    assert set(REMOTE_FAMILIES) <= exact
