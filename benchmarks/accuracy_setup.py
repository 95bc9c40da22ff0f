"""The `RunConfig` of a published run, or the reason why there is none.

Every word-to-option table is a TOML file under `benchmarks/data`; this module only looks things up. What a row does not
say and no table knows is unknown: the row is left out under a reason, never guessed into the score. The few defaults
that are taken are listed in `Mapped.notes` as "assumed".
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from benchmarks.published_rows import Setup
from planner import presets
from planner.config.model import ModelConfig
from planner.config.run import HardwareConfig, OptimizerConfig, Provenance, RunConfig, ScheduleConfig, TrainingConfig
from planner.counts.parameters import parameters_of

DATA = Path(__file__).resolve().parent / "data"
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
class Mapped:
    """The config of one replica of a published run, what its source says beyond the columns, and the mapping in words:
    first the options, then what was assumed."""

    config: RunConfig
    source: Mapping[str, Any]
    options: tuple[str, ...]
    notes: tuple[str, ...]


def config_of_setup(row: Setup, gpu: str) -> Mapped:
    """The config of a row on a card. Raises Excluded, with the first reason met."""
    source = source_facts(row)
    model, notes = _model(row)
    precision, attention, checkpointing = _precision(row), _attention(row), _checkpointing(row)
    runtime = precision["runtime"]
    if _is_compiled(row, gpu, notes) and runtime != "fused":
        runtime = source["compiled_as"] if row.measures == "memory" else "compiled"
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
            "activation_checkpointing_every": checkpointing.get("every", 1),
            "dropout": source["dropout"],
        },
        {"implementation": optimizer, "clip_norm": source["clip_norm"] or None},
        gpu,
    )
    options = (
        gpu,
        precision["recipe"],
        runtime,
        attention["kernel"],
        f"checkpointing {checkpointing['mode']}",
        optimizer,
    )
    return Mapped(config, source, options, tuple(notes))


def _is_compiled(row: Setup, gpu: str, notes: list[str]) -> bool:
    compiled = bool(option_of("compile", row.compile, "compiler not counted", row.measures)["compiled"])
    if compiled and gpu in read_table("gpu_names")["compiler"]["too_old"]:
        notes.append("eager: the card is too old for the compiler")
        return False
    return compiled


def is_pretraining(row: Setup) -> bool:
    """Whether the row is of a pre-training run."""
    return row.task.lower() in PRETRAINING


def refuse_other_tasks(row: Setup) -> None:
    """Raises Excluded for what is no pre-training."""
    if not is_pretraining(row):
        raise Excluded("not pre-training", row.task)


def refuse_other_models(row: Setup) -> None:
    """Raises Excluded for what is no dense model."""
    if row.arch.lower() not in ("", "dense"):
        raise Excluded("not a dense model", row.arch)


@cache
def read_table(name: str) -> dict[str, Any]:
    """A table of benchmarks/data."""
    return tomllib.loads((DATA / f"{name}.toml").read_text(encoding="utf-8"))


def _matches(entry: Mapping[str, Any], cell: str, measures: str) -> bool:
    if entry.get("measures", measures) != measures:
        return False
    low = cell.lower()
    if "equals" in entry:
        return low in entry["equals"]
    return all(part in low for part in entry["contains"])


def option_of(table: str, cell: str, reason: str, measures: str) -> dict[str, Any]:
    """The entry of options.toml that a cell of a row which measures memory or speed matches. Raises Excluded."""
    for entry in read_table("options")[table]:
        if _matches(entry, cell, measures):
            return dict(entry)
    raise Excluded(reason, cell or "blank")


def _attention(row: Setup) -> dict[str, Any]:
    return option_of("attention", row.attn_kernel, "attention kernel unknown", row.measures)


def _checkpointing(row: Setup) -> dict[str, Any]:
    return option_of("checkpointing", row.act_ckpt, "activation checkpointing not stated or not counted", row.measures)


@cache
def _gpu_names() -> dict[str, str]:
    """Names in lower case → preset ids: the presets' own, then the table's."""
    names: dict[str, str] = {}
    for id in presets.gpu_ids():
        card = presets.gpu(id)
        names |= {name.lower(): id for name in (id, card.name, *card.driver_names)}
    return names | {name.lower(): id for name, id in read_table("gpu_names")["names"].items()}


def gpu_of_row(row: Setup) -> str:
    """The preset of the row's card. Raises Excluded."""
    return gpu_of_name(row.gpu)


def gpu_of_name(name: str) -> str:
    """The preset of a card as tables name it. Raises Excluded."""
    found = _gpu_names().get(name.lower(), "")
    if not found:
        raise Excluded("GPU not mapped", name or "blank")
    return found


def software_of(row: Setup) -> str:
    """The generation of software of a row's source, or of its kernels' names; else the newest."""
    known = source_facts(row).get("software")
    if known:
        return str(known)
    kernels = row.attn_kernel.lower()
    return "megatron-2021" if "no flash" in kernels else "pytorch-2023" if "triton" in kernels else "pytorch-2026"


def source_facts(row: Setup) -> dict[str, Any]:
    """What benchmarks/data/sources.toml says about the row's source, and of that what it measured."""
    table = read_table("sources")
    known = f"{row.source_group} {row.source}".lower()
    entry = next((one for one in table["source"] if one["match"] in known), {})
    return {**table["defaults"], **entry, **(entry.get("memory", {}) if row.measures == "memory" else {})}


def _precision(row: Setup) -> dict[str, Any]:
    known = f"{row.source_group} {row.source}".lower()
    for entry in read_table("precisions")["precision"]:
        if _matches(entry, row.precision, row.measures) and all(part in known for part in entry.get("source", ())):
            if not entry["recipe"] or entry["recipe"] not in presets.recipe_ids():
                raise Excluded("recipe not counted", entry["recipe"] or row.precision)
            return dict(entry)
    raise Excluded("precision unknown", row.precision or "blank")


def _family(row: Setup) -> tuple[dict[str, Any], bool]:
    """The family of a model's name, and whether it is only assumed from the kind of MLP. Raises Excluded."""
    table, name, kind = read_table("families"), row.model.lower(), row.mlp_type.lower()
    for entry in table["family"]:
        fits = kind not in ("plain", "gated") or KINDS[entry["shape"]["mlp"]] == kind
        if fits and any(text in name for text in entry["match"]):
            return entry, False
    for entry in table["default"]:
        if entry["mlp_type"] == kind:
            return entry, True
    raise Excluded("model family unknown", row.model or "blank")


def _model(row: Setup) -> tuple[ModelConfig, list[str]]:
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


def _shaped(row: Setup, family: Mapping[str, Any]) -> ModelConfig:
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


def _config(row: Setup, model: ModelConfig, training: dict[str, Any], optimizer: dict[str, Any], gpu: str) -> RunConfig:
    """A whole config; rate, seed and length are those of no row and change no byte."""
    batch = {"steps": 100, "seq": row.seq_len, "micro_batch": row.micro_batch, "accumulation": row.grad_accum or 1}
    batch["seed"] = 0
    try:
        return RunConfig(
            model=model,
            training=TrainingConfig.model_validate(batch | training),
            optimizer=OptimizerConfig(beta1=0.9, beta2=0.95, eps=1e-8, weight_decay=0.1, **optimizer),
            schedule=ScheduleConfig(peak_lr=6e-4, min_lr=6e-5, warmup_steps=10),
            # one replica: what several add is for the score to say
            hardware=HardwareConfig(gpu=gpu, gpus=1, software=software_of(row)),
            provenance=Provenance(as_of="2026-11-21", gptplan="benchmarks.accuracy"),
        )
    except ValidationError as error:
        raise Excluded("configuration not counted", str(error.errors()[0]["msg"])) from None
