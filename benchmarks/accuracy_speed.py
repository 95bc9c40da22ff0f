"""Predicted speed against published measurements: the case of a row, its score, and the summary of a file."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.accuracy_layouts import with_layout
from benchmarks.accuracy_setup import (
    Excluded,
    config_of_setup,
    gpu_of_row,
    is_pretraining,
    refuse_other_models,
    refuse_other_tasks,
)
from benchmarks.accuracy_summary import counted_reasons, error_groups
from benchmarks.speed_rows import SpeedRow
from planner.config.layout import layout_in_words
from planner.config.run import RunConfig
from planner.errors import PlanError
from planner.interval import Interval
from planner.plan import Plan, estimate

REPLICATED = ("", "none", "ddp", "zero0", "zero1", "ddp/zero1")
SHARDED = ("fsdp", "fsdp2")
SIZES = ((3e8, "< 0.3B"), (1e9, "0.3-1B"), (4e9, "1-4B"), (15e9, "4-15B"), (40e9, "15-40B"), (math.inf, "> 40B"))
LENGTHS = ((1024, "<= 1k"), (2048, "<= 2k"), (4096, "<= 4k"), (16384, "<= 16k"), (math.inf, "> 16k"))


@dataclass(frozen=True, slots=True)
class SpeedCase:
    """A row that can be predicted: its config with all its replicas, and the mapping in words."""

    row: SpeedRow
    config: RunConfig
    mapping: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ScoredSpeed:
    """A row with its prediction, tokens per second and GPU. `error`: ln(predicted / measured), above 0: too fast.
    `parts`: seconds of a step by part."""

    case: SpeedCase
    predicted: Interval[float]
    error: float
    parts: dict[str, float]

    @property
    def inside(self) -> bool:
        """Whether the measured speed lies in the predicted interval."""
        assert self.case.row.speed is not None and self.predicted.low is not None and self.predicted.high is not None
        return self.predicted.low <= self.case.row.speed <= self.predicted.high


@dataclass(frozen=True, slots=True)
class LeftSpeed:
    """A row that was left out, and why."""

    row: SpeedRow
    reason: str
    detail: str


def speed_case(row: SpeedRow) -> SpeedCase:
    """The case of a row. Raises Excluded, with the first reason met."""
    refuse_other_tasks(row)
    refuse_other_models(row)
    if row.quality == "C":
        raise Excluded("flagged by the table (quality C)", row.flags)
    if row.speed is None:
        raise Excluded("no measured speed")
    if row.basis.startswith("derived_from"):
        raise Excluded("speed derived from a FLOP formula", row.basis)
    if row.fraction:
        raise Excluded("micro-batch or accumulation not a whole number")
    gpu = gpu_of_row(row)
    mapped = config_of_setup(row, gpu)
    notes = list(mapped.notes)
    if is_cut_up(row):
        cut, more = with_layout(mapped.config, row)
        return SpeedCase(row, cut, (*mapped.options, *notes, layout_in_words(cut), *more))
    replicas = row.dp or row.n_gpus or 1
    if replicas > 1 and "zero1" in row.sharding.lower():
        notes.append("ZeRO-1 read as data parallel: as many bytes are sent")
    config = mapped.config
    hardware = config.hardware.model_copy(update={"gpus": replicas})
    parallel = config.parallel.model_copy(update={"fsdp": replicas > 1 and row.sharding.lower().startswith("fsdp")})
    notes += ["FSDP2"] if parallel.fsdp else []
    changed = {"hardware": hardware, "parallel": parallel}
    return SpeedCase(row, config.model_copy(update=changed), (*mapped.options, *notes))


def is_cut_up(row: SpeedRow) -> str:
    """Why a row's layout cannot be expressed: the reason to count; "" for one device and for replicas."""
    if any((size or 1) > 1 for size in (row.tp, row.pp, row.cp)):
        return "tensor, pipeline or context parallel"
    kind = row.sharding.lower().partition(" ")[0]
    if row.sharding.lower() in (*SHARDED, "fsdp (full shard)"):
        return ""
    if kind in REPLICATED and not (kind == "" and (row.n_gpus or 1) > 1):
        return ""
    return (
        "layout of several GPUs not stated"
        if kind in ("", "unstated")
        else "sharded in another way (ZeRO-2 or 3, in groups)"
    )


def score_speed(row: SpeedRow) -> ScoredSpeed | LeftSpeed:
    """A row's score, or why it has none."""
    try:
        case = speed_case(row)
        plan = estimate(case.config)
    except Excluded as left:
        return LeftSpeed(row, left.reason, left.detail)
    except PlanError as error:
        return LeftSpeed(row, "refused by the planner", error.what)
    predicted = per_gpu_speed(plan, case.config.hardware.gpus)
    if predicted.value is None:
        return LeftSpeed(row, "speed not predicted", plan.throughput.why_unknown)
    assert row.speed is not None, "a row without a speed was left out before"
    return ScoredSpeed(case, predicted, math.log(predicted.value / row.speed), dict(plan.throughput.parts))


def per_gpu_speed(plan: Plan, gpus: int) -> Interval[float]:
    """Tokens per second and GPU of a plan."""
    return plan.throughput.tokens_per_second.map(lambda speed: speed / gpus)


def speed_summary(rows: Sequence[SpeedRow], results: Sequence[ScoredSpeed | LeftSpeed]) -> dict[str, Any]:
    """Everything that is reported, ready for JSON; errors as |ln|, widths as half of ln(high / low)."""
    scored = [result for result in results if isinstance(result, ScoredSpeed)]
    left = [result for result in results if isinstance(result, LeftSpeed)]
    core = [row for row in rows if row.quality == "A" and is_pretraining(row) and row.arch.lower() in ("", "dense")]
    whole = [row for row in core if not is_cut_up(row)]
    kept = {id(result.case.row) for result in scored}
    return {
        "read": len(rows),
        "scored": len(scored),
        **error_groups([(result.case.row.source_group, result.error) for result in scored]),
        **interval_scores([(result.predicted, result.inside) for result in scored]),
        "excluded": counted_reasons([lost.reason for lost in left]),
        "quality_a_dense_pretraining": {
            "n": len(core),
            "expressible": len(whole),
            "expressible_kept": sum(id(row) in kept for row in whole),
        },
        "by": {name: _by(scored, key) for name, key in CLASSES.items()},
        "outside": [speed_row(result) for result in scored if not result.inside],
    }


def interval_scores(found: Sequence[tuple[Interval[float], bool]]) -> dict[str, float | None]:
    """The fraction of measurements inside their intervals, and the median half-width, ln(high / low) / 2."""
    if not found:
        return {"coverage": None, "median_width": None}
    widths = sorted(math.log(float(one.high or 0) / float(one.low or 1)) / 2 for one, _ in found)
    middle = len(widths) // 2
    median = widths[middle] if len(widths) % 2 else (widths[middle - 1] + widths[middle]) / 2
    return {"coverage": sum(inside for _, inside in found) / len(found), "median_width": median}


def _class(bounds: Sequence[tuple[float, str]], value: float) -> str:
    return next(name for most, name in bounds if value <= most)


def _replicas(result: ScoredSpeed) -> str:
    gpus = result.case.config.hardware.gpus
    return "1 GPU" if gpus == 1 else "2-8 GPUs" if gpus <= 8 else "> 8 GPUs"


def _layout(result: ScoredSpeed) -> str:
    p = result.case.config.parallel
    names = [name for name, size in (("tp", p.tp), ("pp", p.pp), ("cp", p.cp)) if size > 1]
    return " + ".join(names) or ("zero" if p.zero else "hsdp" if p.hsdp else "fsdp" if p.fsdp else "replicas")


CLASSES: dict[str, Callable[[ScoredSpeed], str]] = {
    "gpu": lambda result: str(result.case.config.hardware.gpu),
    "size": lambda result: _class(SIZES, float(result.case.row.params_total or 0)),
    "sequence": lambda result: _class(LENGTHS, result.case.config.training.seq),
    "software": lambda result: result.case.config.hardware.software,
    "runtime": lambda result: result.case.config.training.runtime,
    "replicas": _replicas,
    "layout": _layout,
}


def _by(scored: Sequence[ScoredSpeed], key: Callable[[ScoredSpeed], str]) -> list[dict[str, Any]]:
    """Error and bias of each class, the largest class first."""
    classes: dict[str, list[ScoredSpeed]] = defaultdict(list)
    for result in scored:
        classes[key(result)].append(result)
    found = []
    for name, members in sorted(classes.items(), key=lambda item: -len(item[1])):
        signed = sorted(result.error for result in members)
        errors = sorted(abs(error) for error in signed)
        inside = sum(result.inside for result in members) / len(members)
        middle = len(members) // 2
        found.append(
            {"class": name, "n": len(members), "median": errors[middle], "bias": signed[middle], "coverage": inside}
        )
    return found


def speed_row(result: ScoredSpeed | LeftSpeed) -> dict[str, Any]:
    """One row of `--rows`: speeds in tokens per second and GPU, the error signed (positive: too fast)."""
    if isinstance(result, LeftSpeed):
        return {"id": result.row.id, "excluded": result.reason, "detail": result.detail}
    return {
        "id": result.case.row.id,
        "predicted": [result.predicted.low, result.predicted.value, result.predicted.high],
        "measured": result.case.row.speed,
        "error": result.error,
        "inside": result.inside,
        "largest_part": max(result.parts, key=lambda part: result.parts[part]) if result.parts else None,
        "mapping": list(result.case.mapping),
    }
