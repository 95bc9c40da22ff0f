"""Defaults that go by the size of a model: the row of the table, and its source in words."""

from __future__ import annotations

from typing import Any

from planner.config.model import ModelConfig
from planner.counts.parameters import compute_parameters, parameters_of
from planner.rules import row_of_size
from planner.units import format_count


def row_of_model(model: ModelConfig) -> dict[str, Any]:
    """The published batch and peak rate of the nearest model size; `by` says which parameters of a mixture count.

    Keys as in `row_of_size`, and `by`: "" for a dense model.
    """
    return row_of_size(compute_parameters(model)) | {"by": _by(model)}


def _by(model: ModelConfig) -> str:
    if model.moe is None:
        return ""
    counts = parameters_of(model)
    active, total = format_count(counts.active), format_count(counts.total)
    reason = "batch and rate follow compute (DeepSeek LLM, arXiv 2401.02954)"
    return f"; by {active} active of {total} parameters, since {reason}"
