"""Predicted GPU-hours of whole runs against published ones.

A table of GPU-hours names model, tokens and card, rarely the layout. Where the run's own config is public, its layout,
software and batch are in benchmarks/data/hours_layouts.toml; runs of which only a part is known are left out. Any other
row asks what a user would ask: the plan of `gptplan estimate --model M --tokens D --gpu G --gpus N --seq T`, its batch
by the planner's own defaults, data parallel. What a row does not say is in `mapping` as assumed.
"""

from __future__ import annotations

import math
import re
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from benchmarks.accuracy_setup import DATA, Excluded, gpu_of_name, read_table
from benchmarks.accuracy_speed import interval_scores
from benchmarks.accuracy_summary import counted_reasons, error_groups
from benchmarks.hours_rows import HoursRow
from planner import presets
from planner.config.run import RunConfig
from planner.errors import PlanError
from planner.inputs.draft import draft
from planner.inputs.flags import Flags
from planner.interval import Interval
from planner.plan import estimate

WITHOUT_GPUS = 256  # a table that does not say how many: hours of replicas hardly depend on it
COUNT_TOLERANCE = 0.03  # printed sizes are rounded
FP16_ONLY = ("v100", "p100")  # cards without bf16
PARTLY = "layout in part assumed"


@dataclass(frozen=True, slots=True)
class ScoredHours:
    """A row with its prediction, GPU-hours. `error`: ln(predicted / published), below 0: too few hours."""

    row: HoursRow
    predicted: Interval[float]
    error: float
    mapping: tuple[str, ...]

    @property
    def inside(self) -> bool:
        """Whether the published hours lie in the predicted interval."""
        assert self.row.gpu_hours is not None and self.predicted.low is not None and self.predicted.high is not None
        return self.predicted.low <= self.row.gpu_hours <= self.predicted.high


@dataclass(frozen=True, slots=True)
class LeftHours:
    """A row that was left out, and why."""

    row: HoursRow
    reason: str
    detail: str


def score_hours(row: HoursRow) -> ScoredHours | LeftHours:
    """A row's score, or why it has none."""
    try:
        config, notes = _config_of_run(row)
        plan = estimate(config)
    except Excluded as left:
        return LeftHours(row, left.reason, left.detail)
    except PlanError as error:
        return LeftHours(row, "refused by the planner", error.what)
    hours = plan.time.gpu_hours
    if hours.value is None:
        return LeftHours(row, "speed not predicted", config.training.runtime)
    assert row.gpu_hours is not None, "a row without hours was left out before"
    return ScoredHours(row, hours, math.log(hours.value / row.gpu_hours), notes)


def _config_of_run(row: HoursRow) -> tuple[RunConfig, tuple[str, ...]]:
    """The config of a published run and what was assumed. Raises Excluded, with the first reason met."""
    include = row.hours_include.lower()
    if "estimate" in include:
        raise Excluded("an estimate, not a measurement", row.hours_include)
    if row.confidence == "low":
        raise Excluded("flagged by the table (confidence low)", row.notes)
    if row.gpu_hours is None or row.tokens is None:
        raise Excluded("hours or tokens not stated")
    model = _preset(row)
    layout = _layout(row)
    if "left_out" in layout:
        raise Excluded(layout["left_out"], layout["source"])
    gpu = gpu_of_name(row.gpu)
    tokens = 1e12 if "per trillion" in include else row.tokens
    known: dict[str, str] = layout.get("flags", {})
    notes = [f"{name} {value}" for name, value in known.items()]
    notes += [] if layout.get("published") else [PARTLY]
    notes += [] if "micro_batch" in known else ["batch by the planner's defaults"]
    notes += [] if known else ["data parallel assumed"]
    gpus = row.n_gpus or layout.get("gpus")
    if gpus is None:
        notes.append(f"{WITHOUT_GPUS} GPUs assumed")
    half = any(gpu.startswith(card) for card in FP16_ONLY)
    words: dict[str, str | None] = {
        "model": model,
        "tokens": str(int(tokens)),
        "gpu": gpu,
        "gpus": str(gpus or WITHOUT_GPUS),
        "seq": None if row.seq_len is None else str(row.seq_len),
        "recipe": "mixed-fp16" if half else None,
    }
    config = draft(Flags(**words | known), as_of="2026-11-21", version="benchmarks.accuracy")
    return config, (model, gpu, *notes)


@cache
def _preset_names() -> dict[str, str]:
    own = {id: id for id in presets.model_ids()}
    table = tomllib.loads((DATA / "hours_models.toml").read_text(encoding="utf-8"))["models"]
    return own | {str(name): str(id) for name, id in table.items()}


def _name(row: HoursRow) -> str:
    return re.sub(r"\s*\(.*\)", "", row.model).strip().lower()


def _layout(row: HoursRow) -> dict[str, Any]:
    """What the run's own config says, by benchmarks/data/hours_layouts.toml; empty where nothing is known."""
    entries = read_table("hours_layouts")["layout"]
    return next((entry for entry in entries if _name(row) in entry["models"]), {})


def _preset(row: HoursRow) -> str:
    name = _name(row)
    found = _preset_names().get(name)
    if found is None:
        raise Excluded("no preset of this model", row.model)
    count = presets.model(found).published_parameters
    if row.params is not None and abs(count / row.params - 1) > COUNT_TOLERANCE:
        raise Excluded("parameter count contradicts the preset", f"{row.params:.0f} printed, {count} counted")
    return found


def hours_summary(rows: Sequence[HoursRow], results: Sequence[ScoredHours | LeftHours]) -> dict[str, Any]:
    """Everything that is reported, ready for JSON; errors as |ln|, widths as half of ln(high / low)."""
    scored = [result for result in results if isinstance(result, ScoredHours)]
    errors = sorted(abs(result.error) for result in scored)
    return {
        "read": len(rows),
        "scored": len(scored),
        **error_groups([(_group(result.row), result.error) for result in scored]),
        "median": error_groups([("all", result.error) for result in scored])["median_of_group_medians"],
        "within_10_percent": sum(error <= 0.1 for error in errors),
        "published_layouts": _of_published_layouts(scored),
        **interval_scores([(result.predicted, result.inside) for result in scored]),
        "excluded": counted_reasons([left.reason for left in results if isinstance(left, LeftHours)]),
        "outside": [hours_row(result) for result in scored if not result.inside],
    }


def _of_published_layouts(scored: Sequence[ScoredHours]) -> dict[str, Any]:
    """How many rows have a layout from the run's own config, and the median of their errors."""
    mine = [("all", result.error) for result in scored if PARTLY not in result.mapping]
    return {"n": len(mine), "median": error_groups(mine)["median_of_group_medians"]}


def _group(row: HoursRow) -> str:
    """The family of a model: runs of one family come from one table."""
    return re.split(r"[-\s]\d", row.model, maxsplit=1)[0].strip()


def hours_row(result: ScoredHours | LeftHours) -> dict[str, Any]:
    """One row of `--rows`: GPU-hours, the error signed (negative: too few)."""
    if isinstance(result, LeftHours):
        return {"id": result.row.model, "excluded": result.reason, "detail": result.detail}
    return {
        "id": result.row.model,
        "predicted": [result.predicted.low, result.predicted.value, result.predicted.high],
        "measured": result.row.gpu_hours,
        "error": result.error,
        "inside": result.inside,
        "mapping": list(result.mapping),
    }
