"""The `RunConfig` of a published row, or the reason why there is none.

Every word-to-option table is a TOML file under `benchmarks/data`; this module only looks things up. What a row does not
say and no table knows is unknown: the row is left out under a reason, never guessed into the score. The few defaults
that are taken are listed in `Case.mapping` as "assumed".
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from benchmarks.memory_rows import Row
from planner import presets
from planner.config.model import ModelConfig
from planner.config.run import HardwareConfig, OptimizerConfig, Provenance, RunConfig, ScheduleConfig, TrainingConfig
from planner.counts.parameters import parameters_of

DATA = Path(__file__).resolve().parent / "data"
UNSHARDED = ("", "none", "ddp", "zero0")
PRETRAINING = ("pretrain", "pretraining", "pre-training")
COUNT_TOLERANCE = 0.02  # a published count further than this from the shape's own contradicts it
SHAPE = ("n_layers", "hidden", "n_heads", "vocab")
KINDS = {"swiglu": "gated", "geglu": "gated"} | dict.fromkeys(("gelu", "gelu-written-out", "relu", "relu2"), "plain")


class Excluded(Exception):
    """A row that cannot be scored; `reason` is what is counted, `detail` the value that was met."""

    def __init__(self, reason: str, detail: str = "") -> None:
        self.reason, self.detail = reason, detail
        super().__init__(f"{reason}: {detail}" if detail else reason)


@dataclass(frozen=True, slots=True)
class Case:
    """A row that can be scored: its config, the field of the memory account that stands for what was measured (None for
    a verdict), whether DDP's buckets hold the gradients a second time, bytes of each buffer that the program holds
    beside the model, and the mapping in words."""

    row: Row
    config: RunConfig
    field: str | None
    buckets: bool
    buffers: tuple[int, ...]
    mapping: tuple[str, ...]


def case_of(row: Row) -> Case:
    """The case of a row. Raises Excluded, with the first reason met."""
    _refuse_other_tasks(row)
    gpu = _gpu(row)
    field = _quantity(row)
    source = _source(row)
    model, notes = _model(row)
    precision, attention, checkpointing = _precision(row), _attention(row), _checkpointing(row)
    compiled = bool(_option("compile", row.compile, "compiler not counted")["compiled"])
    if compiled and gpu in _toml("gpu_names")["compiler"]["too_old"]:
        compiled = False
        notes.append("eager: the card is too old for the compiler")
    runtime = precision["runtime"]
    if compiled and runtime != "fused":
        runtime = source["compiled_as"]
        if runtime != "compiled":
            notes.append("compiled by a release that kept what eager keeps")
    optimizer = "fused" if "fused adam" in row.notes.lower() else source["optimizer"]
    if row.micro_batch is None or row.seq_len is None:
        raise Excluded("micro-batch or sequence not stated")
    if row.grad_accum is None:
        notes.append("accumulation 1 assumed")
    if attention.get("assumed"):
        notes.append("flash attention assumed")
    if precision.get("assumed"):
        notes.append("fp32 weights under autocast assumed")
    config = _config(
        row,
        model,
        {
            "recipe": precision["recipe"],
            "runtime": runtime,
            "returns_logits": source.get("returns_logits", False),
            "attention_kernel": attention["kernel"],
            "activation_checkpointing": checkpointing["mode"],
            "dropout": source["dropout"],
        },
        {"implementation": optimizer, "clip_norm": source["clip_norm"] or None},
        gpu,
    )
    buckets = (row.dp or row.n_gpus or 1) > 1 and source["ddp_buckets"]
    if buckets:
        notes.append("DDP buckets: one more copy of the gradients")
    buffers = (source["buffer_bytes_per_block"],) * model.layers if source["buffer_bytes_per_block"] else ()
    if buffers:
        notes.append(f"a buffer of {buffers[0]:,} bytes in each block")
    words = (
        gpu,
        precision["recipe"],
        runtime,
        attention["kernel"],
        f"checkpointing {checkpointing['mode']}",
        optimizer,
    )
    return Case(row, config, field, buckets, buffers, (*words, *notes))


def is_pretraining(row: Row) -> bool:
    """Whether the row is of a pre-training run."""
    return row.task.lower() in PRETRAINING


def is_sharded(row: Row) -> bool:
    """Whether the state or the model is cut up among GPUs, or the row does not say how several GPUs share it."""
    if any((size or 1) > 1 for size in (row.tp, row.pp, row.cp)):
        return True
    kind = row.sharding.lower().partition(" ")[0]
    return kind not in UNSHARDED or (kind == "" and (row.n_gpus or 1) > 1)


def _refuse_other_tasks(row: Row) -> None:
    if not is_pretraining(row):
        raise Excluded("not pre-training", row.task)
    if is_sharded(row):
        raise Excluded("sharded", row.sharding)
    if row.arch.lower() not in ("", "dense"):
        raise Excluded("not a dense model", row.arch)


@cache
def _toml(name: str) -> dict[str, Any]:
    """A table of benchmarks/data."""
    return tomllib.loads((DATA / f"{name}.toml").read_text(encoding="utf-8"))


def _matches(entry: Mapping[str, Any], cell: str) -> bool:
    low = cell.lower()
    if "equals" in entry:
        return low in entry["equals"]
    return all(part in low for part in entry["contains"])


def _option(table: str, cell: str, reason: str) -> dict[str, Any]:
    """The entry of options.toml that a cell matches. Raises Excluded."""
    for entry in _toml("options")[table]:
        if _matches(entry, cell):
            return dict(entry)
    raise Excluded(reason, cell or "blank")


def _attention(row: Row) -> dict[str, Any]:
    return _option("attention", row.attn_kernel, "attention kernel unknown")


def _checkpointing(row: Row) -> dict[str, Any]:
    return _option("checkpointing", row.act_ckpt, "activation checkpointing not stated or not counted")


@cache
def _gpu_names() -> dict[str, str]:
    """Names in lower case → preset ids: the presets' own, then the table's."""
    names: dict[str, str] = {}
    for id in presets.gpu_ids():
        card = presets.gpu(id)
        names |= {name.lower(): id for name in (id, card.name, *card.driver_names)}
    return names | {name.lower(): id for name, id in _toml("gpu_names")["names"].items()}


def _gpu(row: Row) -> str:
    found = _gpu_names().get(row.gpu.lower(), "")
    if not found:
        raise Excluded("GPU not mapped", row.gpu or "blank")
    return found


def _quantity(row: Row) -> str | None:
    """The field of the memory account that the row measured; None for a verdict, which the account gives by itself."""
    if row.outcome in ("oom", "fits"):
        return None
    if row.outcome != "peak":
        raise Excluded("not a peak", row.outcome or "blank")
    if row.low is None:
        raise Excluded("no measured size")
    return str(_option("quantity", row.peak_mem_kind, "kind of memory not stated")["field"])


def _source(row: Row) -> dict[str, Any]:
    table = _toml("sources")
    known = f"{row.source_group} {row.source}".lower()
    for entry in table["source"]:
        if entry["match"] in known:
            return {**table["defaults"], **entry}
    return dict(table["defaults"])


def _precision(row: Row) -> dict[str, Any]:
    known = f"{row.source_group} {row.source}".lower()
    for entry in _toml("precisions")["precision"]:
        if _matches(entry, row.precision) and all(part in known for part in entry.get("source", ())):
            if not entry["recipe"] or entry["recipe"] not in presets.recipe_ids():
                raise Excluded("recipe not counted", entry["recipe"] or row.precision)
            return dict(entry)
    raise Excluded("precision unknown", row.precision or "blank")


def _family(row: Row) -> tuple[dict[str, Any], bool]:
    """The family of a model's name, and whether it is only assumed from the kind of MLP. Raises Excluded."""
    table, name, kind = _toml("families"), row.model.lower(), row.mlp_type.lower()
    for entry in table["family"]:
        fits = kind not in ("plain", "gated") or KINDS[entry["shape"]["mlp"]] == kind
        if fits and any(text in name for text in entry["match"]):
            return entry, False
    for entry in table["default"]:
        if entry["mlp_type"] == kind:
            return entry, True
    raise Excluded("model family unknown", row.model or "blank")


def _model(row: Row) -> tuple[ModelConfig, list[str]]:
    """The model of a row and what was assumed about it. Raises Excluded."""
    missing = [name for name in SHAPE if getattr(row, name) is None]
    if missing or row.tied is None or row.seq_len is None:
        raise Excluded("model shape not stated", ", ".join(missing) or "tied or seq_len")
    entry, assumed = _family(row)
    notes = ["family assumed"] if assumed else []
    variants = [_shaped(row, entry["shape"] | other) for other in ({}, *entry.get("alternatives", ()))]
    found = _nearest(variants, row.params_total)
    if found is not variants[0]:
        notes.append("variant of the family by its parameter count")
    if row.params_total is not None:
        count = parameters_of(found).total
        if abs(count / row.params_total - 1) > COUNT_TOLERANCE:
            raise Excluded("parameter count contradicts the shape", f"{row.params_total} printed, {count} counted")
    return found, notes


def _nearest(variants: Sequence[ModelConfig], wanted: int | None) -> ModelConfig:
    """The first variant, or the one whose count comes nearest to the published one; of equals the first."""
    if wanted is None:
        return variants[0]
    return min(variants, key=lambda model: abs(parameters_of(model).total - wanted))


def _shaped(row: Row, family: Mapping[str, Any]) -> ModelConfig:
    assert row.hidden is not None and row.n_heads is not None
    gated = KINDS[family["mlp"]] == "gated"
    if row.ffn is None and gated:
        raise Excluded("model shape not stated", "ffn")
    shape = {
        "name": row.model or row.id,
        "layers": row.n_layers,
        "hidden": row.hidden,
        "heads": row.n_heads,
        "kv_heads": row.n_kv_heads or row.n_heads,
        "head_dim": row.head_dim or row.hidden // row.n_heads,
        "ffn": row.ffn or 4 * row.hidden,
        "vocab": row.vocab,
        "context": row.seq_len,
        "tied_embeddings": row.tied,
        "source": row.source or row.source_group,
    }
    try:
        return ModelConfig.model_validate(shape | dict(family))
    except ValidationError as error:
        raise Excluded("model not counted", str(error.errors()[0]["msg"])) from None


def _config(row: Row, model: ModelConfig, training: dict[str, Any], optimizer: dict[str, Any], gpu: str) -> RunConfig:
    """A whole config; rate, seed and length are those of no row and change no byte."""
    batch = {"steps": 100, "seq": row.seq_len, "micro_batch": row.micro_batch, "accumulation": row.grad_accum or 1}
    batch["seed"] = 0
    try:
        return RunConfig(
            model=model,
            training=TrainingConfig.model_validate(batch | training),
            optimizer=OptimizerConfig(beta1=0.9, beta2=0.95, eps=1e-8, weight_decay=0.1, **optimizer),
            schedule=ScheduleConfig(peak_lr=6e-4, min_lr=6e-5, warmup_steps=10),
            # one replica: DDP's buckets are added by the score, so that no change of the planner counts them twice
            hardware=HardwareConfig(gpu=gpu, gpus=1),
            provenance=Provenance(as_of="2026-11-21", gptplan="benchmarks.accuracy"),
        )
    except ValidationError as error:
        raise Excluded("configuration not counted", str(error.errors()[0]["msg"])) from None
