"""Presets by name: GPUs, models, recipes and prices, each number with the source that it came from.

The data are the TOML files under `presets/`, one per name; nothing is repeated here. A name is an id, matched exactly,
upper and lower case included; an unknown one is an error that offers the nearest and never another card's number.
What a source does not state is `None`, never 0. Numbers are in base units: byte, FLOP/s, byte/s, W, token, USD.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Literal

from planner.errors import UnknownNameError

# The same place in a checkout and in an installed wheel: the wheel ships `presets` as a folder beside `planner`.
PRESETS = Path(__file__).resolve().parent.parent / "presets"
# Of the driver's total, at most this fraction is not CUDA's: 2.4 % on an A4000 is the most of the 14 cards with
# `cuda_bytes`, 0 the least (V100).
KEPT_BACK = 0.025
UNLISTED_GPU = "unlisted-gpu"  # the id of every card that no preset describes: it trains, nothing of it is known


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpu:
    """One accelerator card, as its data sheet and its driver describe it.

    `driver_names`: what `nvidia-smi --query-gpu=name` prints. `marketing_memory_bytes`: the GB of the name x 1e9.
    `driver_bytes`: byte, the total that the driver shows. `cuda_bytes`: byte, the total of `cudaMemGetInfo`, which an
    out-of-memory message names; None where nobody printed it. `multiprocessors`: streaming multiprocessors in use;
    `threads_per_multiprocessor`: that each holds at most, a number of the compute capability.
    `peak_dense_flops`: FLOP/s by element type (bf16, fp16, tf32,
    fp32 outside the tensor cores, fp8), without sparsity; a type that is absent is unknown or not supported.
    `memory_bandwidth`: byte/s. `link_bandwidth`: byte/s per GPU in one direction. `link_domain`: GPUs that this
    link joins as the card is sold, `network_cards`: of all these together; None: not stated. `power_watts`: W, board
    limit.
    `best_matmul_bf16`: FLOP/s, the best bf16 matrix product that the source measured. `as_of`: ISO date on which the
    row was carried over. `provenance`: "read" in the source, "memory", or both.
    """

    id: str
    name: str
    vendor: str
    year: int
    driver_names: tuple[str, ...]
    marketing_memory_bytes: int
    driver_bytes: int | None = None
    cuda_bytes: int | None = None
    multiprocessors: int | None = None
    threads_per_multiprocessor: int | None = None
    # a dict cannot be hashed; the id alone tells two cards apart
    peak_dense_flops: Mapping[str, int] = field(default_factory=dict, hash=False)
    memory_bandwidth: int | None = None
    link_bandwidth: int | None = None
    link_name: str | None = None
    link_domain: int | None = None
    network_cards: int | None = None
    power_watts: int | None = None
    best_matmul_bf16: int | None = None
    source: str
    provenance: str
    as_of: str
    notes: str = ""

    @property
    def usable_bytes(self) -> int | None:
        """What CUDA can surely hand out, contexts included: CUDA's own total, else the driver's less `KEPT_BACK`."""
        if self.cuda_bytes is not None or self.driver_bytes is None:
            return self.cuda_bytes
        return int(self.driver_bytes * (1 - KEPT_BACK))

    @property
    def most_usable_bytes(self) -> int | None:
        """What CUDA can hand out at most: its own total, else all that the driver shows."""
        return self.driver_bytes if self.cuda_bytes is None else self.cuda_bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Pretraining:
    """How the published model was trained; `None` where the source does not say.

    `tokens`: tokens seen. `batch_tokens`: tokens per optimizer step. `schedule`, `warmup`: in the source's words.
    The rest has no unit.
    """

    tokens: int | None = None
    batch_tokens: int | None = None
    peak_lr: float | None = None
    min_lr: float | None = None
    schedule: str | None = None
    warmup: str | None = None
    beta1: float | None = None
    beta2: float | None = None
    eps: float | None = None
    weight_decay: float | None = None
    grad_clip: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelPreset:
    """A published model. `published_parameters`: parameters, input embedding included and tied weights once.

    `parameters_check`: "published" where the source prints that count, "computed" where it prints a rounded label, or a
    count of something else (the notes say of what), and this is the shape counted out. `unconfirmed`: keys of the shape
    whose value no source settles; a plan says so.
    """

    id: str
    name: str
    family: str
    shape: Mapping[str, Any] = field(hash=False)  # the [shape] table: keys of ModelConfig, which checks them
    published_parameters: int
    parameters_check: Literal["published", "computed"]
    pretraining: Pretraining
    source: str
    source_hparams: str = ""
    provenance: str
    as_of: str
    unconfirmed: tuple[str, ...] = ()
    notes: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """A precision recipe: how many bytes each part takes; optimizer states are the optimizer's matter.

    `*_bytes_per_parameter`: byte per parameter. `compute_dtype`: of the matrix products, whose peak is the one that
    utilisation is measured against. `compute_bytes`, `residual_bytes`, `logits_bytes`: byte per element of what is
    saved of a matrix product's operands, of the residual stream, of the logits as the head writes them.
    `weight_casts_bytes_per_linear_weight`: byte per weight of a linear layer, kept for the backward pass.
    `held_casts_bytes_per_linear_weight`: the same, kept from step to step. `moments_dtype`: of the optimizer's state,
    None where it is that of the weights which are updated. `loss_scale`: whether the loss is scaled. `runtime`: the
    one that the recipe asks for. `trainable`: whether the reference trainer runs it.
    """

    id: str
    name: str
    description: str
    weights_bytes_per_parameter: int
    gradients_bytes_per_parameter: int
    master_weights_bytes_per_parameter: int
    compute_dtype: str
    compute_bytes: int
    residual_bytes: int
    logits_bytes: int
    loss_dtype: str
    weight_casts_bytes_per_linear_weight: int
    held_casts_bytes_per_linear_weight: int = 0
    moments_dtype: str | None = None
    loss_scale: bool = False
    runtime: str = "eager"
    trainable: bool = True
    source: str
    as_of: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Price:
    """The on-demand price of one GPU in one price list: USD per GPU and hour; median, lowest and highest row.

    `list_id`, `date`, `source`: the list, the date of its newest row and where it comes from. `providers`: whose rows
    they are, in alphabetical order. `rows`: how many rows the median is of.
    """

    gpu: str
    usd_per_gpu_hour: float
    low_usd_per_gpu_hour: float
    high_usd_per_gpu_hour: float
    kind: str
    rows: int
    providers: tuple[str, ...]
    list_id: str
    date: str
    source: str


def gpu_ids() -> list[str]:
    """The ids of all GPUs, in alphabetical order."""
    return _ids("gpus")


@cache
def gpu(id: str) -> Gpu:
    """The GPU of that id, e.g. "a100-80gb" (the SXM card; others say "pcie"); without numbers for `UNLISTED_GPU`.

    Raises UnknownNameError.
    """
    if id == UNLISTED_GPU:
        nothing: dict[str, Any] = {"marketing_memory_bytes": 0, "year": 0, "vendor": "", "provenance": "", "as_of": ""}
        return Gpu(id=id, name="a GPU without a preset", driver_names=(), source="no preset describes it", **nothing)
    return _gpu(_table("GPU", "gpus", id))


def gpu_by_driver_name(text: str) -> Gpu | None:
    """The GPU whose driver prints `text` (nvidia-smi, torch.cuda.get_device_name), or None; no near match."""
    wanted = text.strip()
    for id in gpu_ids() if wanted else []:
        content = _text("gpus", id)
        if wanted in content:  # a search costs microseconds, parsing all the files some 20 ms
            card = _gpu(tomllib.loads(content))
            if wanted in card.driver_names:
                return card
    return None


def model_ids() -> list[str]:
    """The ids of all models, in alphabetical order."""
    return _ids("models")


def model(id: str) -> ModelPreset:
    """The published model of that id, e.g. "gpt2" or "llama-2-7b". Raises UnknownNameError."""
    table = _table("model", "models", id)
    parts = {"shape": table.pop("shape"), "pretraining": Pretraining(**table.pop("pretraining", {}))}
    return ModelPreset(**parts, unconfirmed=tuple(table.pop("unconfirmed", ())), **table)


@cache
def model_parameters() -> Mapping[str, int]:
    """The parameters of every model by its id; no file is parsed, one line of each is looked up, in some 10 ms."""
    key = "\npublished_parameters = "
    return {id: int(_text("models", id).partition(key)[2].partition(" ")[0]) for id in model_ids()}


def recipe_ids() -> list[str]:
    """The ids of all recipes, in alphabetical order."""
    return _ids("recipes")


@cache
def recipe(id: str) -> Recipe:
    """The recipe of that id, e.g. "mixed-bf16". Raises UnknownNameError."""
    return Recipe(**_table("recipe", "recipes", id))


@cache
def price(gpu_id: str) -> Price | None:
    """The on-demand price of a GPU, USD per GPU and hour, from the newest trusted list that has it; None: in no list.

    A list is trusted when its `confidence` is "read"; secondary pages that contradict one another are "low" and never
    used. Raises UnknownNameError for a GPU that is not in the presets.
    """
    if gpu_id == UNLISTED_GPU:
        return None
    if gpu_id not in gpu_ids():
        raise UnknownNameError("GPU", gpu_id, gpu_ids())
    for list_id in _price_lists_newest_first():
        content = _text("prices", list_id)
        if f'"{gpu_id}"' not in content:  # spares parsing a list that cannot have the card
            continue
        table = tomllib.loads(content)
        rows = [row for row in table["row"] if row["gpu"] == gpu_id and row["kind"] == "on-demand"]
        if rows and table["confidence"] == "read":
            hourly = sorted(float(row["usd_per_gpu_hour"]) for row in rows)
            return Price(
                gpu=gpu_id,
                usd_per_gpu_hour=_median(hourly),
                low_usd_per_gpu_hour=hourly[0],
                high_usd_per_gpu_hour=hourly[-1],
                kind="on-demand",
                rows=len(rows),
                providers=tuple(sorted({row["provider"] for row in rows})),
                list_id=list_id,
                date=table["date"],
                source=table["source"],
            )
    return None


def _price_lists_newest_first() -> list[str]:
    """Price-list ids, newest first; an id ends in its date, and a year alone counts as the beginning of that year."""
    return sorted(_ids("prices"), key=lambda list_id: list_id.partition("-")[2], reverse=True)


def _median(ordered: list[float]) -> float:
    """The median of sorted numbers (`statistics` would do it, and takes 10 ms to import)."""
    middle = len(ordered) // 2
    return ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2


def _ids(folder: str) -> list[str]:
    return list(_listing(folder))


@cache
def _listing(folder: str) -> tuple[str, ...]:
    return tuple(sorted(path.name.removesuffix(".toml") for path in (PRESETS / folder).glob("*.toml")))


def _text(folder: str, id: str) -> str:
    return (PRESETS / folder / f"{id}.toml").read_text(encoding="utf-8")


def _table(kind: str, folder: str, id: str) -> dict[str, Any]:
    """The parsed file of `id`; only that one is read. Raises UnknownNameError.

    The name is looked up in the folder's listing and never tried as a path: "../x" is unknown, and so is "GPT2" on a
    file system that ignores case.
    """
    known = _ids(folder)
    if id not in known:
        raise UnknownNameError(kind, id, known)
    return tomllib.loads(_text(folder, id))


def _gpu(table: dict[str, Any]) -> Gpu:
    return Gpu(driver_names=tuple(table.pop("driver_names")), **table)
