"""Presets: every shipped file loads, names its sources, and gives the published parameter count."""

from __future__ import annotations

import dataclasses
import tomllib
from collections.abc import Callable
from pathlib import Path
from statistics import median

import pytest
from pydantic import ValidationError

from planner import presets
from planner.config.model import ModelConfig
from planner.counts.parameters import parameters_of
from planner.errors import UnknownNameError
from planner.inputs.draft import draft
from planner.inputs.flags import Flags
from planner.inputs.run_toml import config_from, config_text

# rules are constants, not presets by name; test_rules.py reads them
FILES = sorted(p for p in presets.PRESETS.glob("*/*.toml") if p.parent.name != "rules")
LOADERS: dict[str, Callable[[str], presets.Gpu | presets.ModelPreset | presets.Recipe]] = {
    "gpus": presets.gpu,
    "models": presets.model,
    "recipes": presets.recipe,
}
LISTERS = {"gpus": presets.gpu_ids, "models": presets.model_ids, "recipes": presets.recipe_ids}
PRICE_LISTS = {
    path.stem: tomllib.loads(path.read_text(encoding="utf-8")) for path in FILES if path.parent.name == "prices"
}


def test_every_shipped_file_is_in_a_known_folder() -> None:
    assert {path.parent.name for path in FILES} == {*LOADERS, "prices"}
    for folder, lister in LISTERS.items():
        assert lister() == sorted(path.name.removesuffix(".toml") for path in FILES if path.parent.name == folder)


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_every_file_has_its_own_id_and_a_source(path: Path) -> None:
    table = tomllib.loads(path.read_text(encoding="utf-8"))
    assert table["id"] == path.name.removesuffix(".toml")
    assert table["source"]
    if path.parent.name in LOADERS:
        loaded = LOADERS[path.parent.name](table["id"])
        assert (loaded.id, loaded.source, loaded.as_of) == (table["id"], table["source"], table["as_of"])
        # absent is unknown; a zero would be taken for a measured one (a recipe's 0 bytes are real)
        assert path.parent.name == "recipes" or 0 not in [v for v in table.values() if not isinstance(v, bool)]


@pytest.mark.parametrize("id", presets.model_ids())
def test_model_has_the_published_parameter_count(id: str) -> None:
    preset = presets.model(id)
    model = ModelConfig(name=id, source=preset.source, **preset.shape)
    assert parameters_of(model).total == preset.published_parameters


@pytest.mark.parametrize("id", presets.model_ids())
def test_model_round_trips_through_the_config_and_its_file(id: str) -> None:
    preset = presets.model(id)
    model = ModelConfig(name=id, source=preset.source, **preset.shape)
    said = model.model_dump(exclude_unset=True, exclude_none=True)
    assert {key: said[key] for key in preset.shape} == dict(preset.shape)  # no key is dropped, nothing is changed
    config = draft(Flags(model=id, steps="1000", seq="512", gpu="cpu"), as_of="2026-11-21", version="0")
    again = config_from(tomllib.loads(config_text(config)), "run.toml")
    assert again == config and parameters_of(again.model).total == preset.published_parameters


@pytest.mark.parametrize("id", presets.model_ids())
def test_model_states_its_epsilon_and_rotary_base_with_their_source(id: str) -> None:
    shape = presets.model(id).shape
    assert 0 < shape["norm_eps"] <= 1e-5
    assert ("rope_base" in shape) == (shape["position"] == "rotary")
    text = (presets.PRESETS / "models" / f"{id}.toml").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if line.startswith(("rope_base = ", "norm_eps = "))]
    assert all(line.partition("; ")[2] for line in lines) and len(lines) == 1 + ("rope_base" in shape)


def test_a_constant_that_no_source_settles_is_marked_and_the_plan_says_so() -> None:
    marked = {}
    for id in presets.model_ids():
        text = (presets.PRESETS / "models" / f"{id}.toml").read_text(encoding="utf-8")
        said = [line.partition(" = ")[0] for line in text.splitlines() if "; not confirmed: " in line]
        assert sorted(said) == sorted(presets.model(id).unconfirmed), id
        marked |= {id: said} if said else {}
    assert marked == {"internlm-7b": ["norm_eps"]}
    flags = {"model": "internlm-7b", "steps": "1000", "seq": "512", "gpu": "cpu"}
    config = draft(Flags(**flags), as_of="2026-11-21", version="0")
    found = {a.key: a.source for a in config.provenance.assumptions}
    assert "not confirmed" in found["norm_eps"] and "rope_base" not in found
    typed = draft(Flags(**flags, norm_eps="1e-5"), as_of="2026-11-21", version="0")
    assert "norm_eps" not in {a.key for a in typed.provenance.assumptions} and typed.model.norm_eps == 1e-5
    other = draft(Flags(model="llama-2-7b"), as_of="2026-11-21", version="0", base=config)
    assert not {"norm_eps", "rope_base"} & {a.key for a in other.provenance.assumptions}
    usual = draft(Flags(**flags | {"model": "llama-2-7b"}), as_of="2026-11-21", version="0")
    assert not {"norm_eps", "rope_base"} & {a.key for a in usual.provenance.assumptions}


def test_published_constants() -> None:
    """What config.json of these models says, typed here by hand."""
    typed = {
        "llama-2-7b": (1e4, 1e-5), "llama-3-8b": (5e5, 1e-5), "qwen2.5-7b": (1e6, 1e-6), "qwen3-8b": (1e6, 1e-6),
        "mixtral-8x7b": (1e6, 1e-5), "gemma-2-2b": (1e4, 1e-6), "olmo-2-7b": (5e5, 1e-6), "deepseek-v3": (1e4, 1e-6),
        "smollm2-135m": (1e5, 1e-5), "llama-7b": (1e4, 1e-6), "llama-65b": (1e4, 1e-5), "qwen2.5-72b": (1e6, 1e-5),
    }  # fmt: skip
    shapes = {id: presets.model(id).shape for id in typed}
    assert {id: (shape["rope_base"], shape["norm_eps"]) for id, shape in shapes.items()} == typed
    assert [presets.model(id).shape["rope_scaling"]["factor"] for id in ("llama-3.1-405b", "llama-3.2-1b")] == [8, 32]


def test_which_counts_are_published_and_which_only_counted_out() -> None:
    checks = {id: presets.model(id).parameters_check for id in presets.model_ids()}
    assert set(checks.values()) == {"published", "computed"}
    assert sum(check == "published" for check in checks.values()) >= 60
    rounded = [id for id in checks if id.startswith(("gpt-3-", "cerebras-gpt-"))]
    assert len(rounded) == 14 and {checks[id] for id in rounded} == {"computed"}


def test_what_other_counts_have_in_addition() -> None:
    neox, deepseek = presets.model("gpt-neox-20b"), presets.model("deepseek-v3")
    # its card sums over two tensor-parallel ranks: what both hold is counted twice
    duplicated = (44 * 6 + 2) * 6144
    assert neox.published_parameters + duplicated == 20_556_201_984
    # the safetensors metadata counts one bias per routed expert of the 58 blocks, which no gradient changes
    assert deepseek.published_parameters + 58 * 256 == 671_026_419_200


@pytest.mark.parametrize(
    ("id", "active"),
    [
        ("mixtral-8x7b", 12_879_925_248),
        ("qwen3-30b-a3b", 3_353_032_704),
        ("deepseek-v3", 37_552_282_624),  # the report prints 37B
    ],
)
def test_active_parameters_of_a_mixture(id: str, active: int) -> None:
    preset = presets.model(id)
    counted = parameters_of(ModelConfig(name=id, source=preset.source, **preset.shape))
    assert counted.active == active < counted.total


def test_a_learned_table_may_have_more_rows_than_positions() -> None:
    preset = presets.model("opt-175b")
    plain = ModelConfig(name="x", source="x", **{**preset.shape, "position_rows": None})
    assert preset.published_parameters - parameters_of(plain).total == 2 * 12288
    for wrong in ({"position_rows": 2047}, {"position": "rotary"}):
        with pytest.raises(ValidationError, match="position_rows"):
            ModelConfig(name="x", source="x", **{**preset.shape, **wrong})


def test_gpt2_and_llama_counts_are_the_published_ones() -> None:
    published = {
        "gpt2": 124_439_808,
        "gpt2-xl": 1_557_611_200,
        "llama-2-7b": 6_738_415_616,
        "llama-3-8b": 8_030_261_248,
    }
    assert {id: presets.model(id).published_parameters for id in published} == published


def test_pretraining_absent_is_none() -> None:
    assert presets.model("mistral-7b-v0.1").pretraining == presets.Pretraining()
    assert presets.model("llama-2-7b").pretraining.tokens == 2_000_000_000_000
    assert presets.model("llama-2-7b").pretraining.min_lr == 3e-5


def test_a100_80gb_is_the_sxm_card() -> None:
    card = presets.gpu("a100-80gb")
    assert card.name == "A100 SXM4 80GB"
    assert card.peak_dense_flops["bf16"] == 312e12
    assert card.driver_bytes == 81920 * 2**20
    assert card.usable_bytes == card.most_usable_bytes == int(79.15 * 2**30)
    assert (card.marketing_memory_bytes, card.memory_bandwidth, card.link_bandwidth) == (80e9, 2039e9, 300e9)
    assert "fp8" not in card.peak_dense_flops
    assert presets.gpu("h100-80gb").peak_dense_flops["bf16"] == 989_400_000_000_000


def test_peaks_are_dense_and_plausible() -> None:
    for card in map(presets.gpu, presets.gpu_ids()):
        assert set(card.peak_dense_flops) <= {"bf16", "fp16", "tf32", "fp32", "fp8"} and card.peak_dense_flops
        assert all(type(peak) is int and 1e12 < peak < 1e16 for peak in card.peak_dense_flops.values())
        # GiB against GB: what the driver shows lies within 8% of the name
        assert card.driver_bytes is None or 0.95 < card.driver_bytes / card.marketing_memory_bytes < 1.08
        assert card.best_matmul_bf16 is None or card.best_matmul_bf16 < card.peak_dense_flops["bf16"]
        hash(card), dataclasses.asdict(card)


def test_what_cuda_can_use_is_at_most_what_the_driver_shows() -> None:
    """Totals in public out-of-memory messages, GiB; the H200's was measured."""
    printed = {"rtx-4090": 23.64, "a100-40gb": 39.50, "a100-80gb": 79.15, "h100-80gb": 79.11, "h200": 139.80,
               "t4": 14.75, "a30": 23.53}  # fmt: skip
    for id in presets.gpu_ids():
        card = presets.gpu(id)
        if card.driver_bytes is None or card.usable_bytes is None or card.most_usable_bytes is None:
            assert card.cuda_bytes is card.usable_bytes is card.most_usable_bytes is None
            continue
        assert card.driver_bytes * (1 - presets.KEPT_BACK) - 1 <= card.usable_bytes <= card.most_usable_bytes
        assert card.most_usable_bytes <= card.driver_bytes
        assert (card.usable_bytes == card.most_usable_bytes) == (card.cuda_bytes is not None)
        if id in printed:
            assert card.cuda_bytes is not None and round(card.cuda_bytes / 2**30, 2) == printed[id]


def test_driver_names_name_one_card_each() -> None:
    names = [(name, id) for id in presets.gpu_ids() for name in presets.gpu(id).driver_names]
    assert len({name for name, _ in names}) == len(names)
    for name, id in names:
        found = presets.gpu_by_driver_name(f" {name}\n")
        assert found is not None and found.id == id
    for unknown in ("", "NVIDIA", "A100", "NVIDIA A100-SXM4", "nvidia h200", "read"):
        assert presets.gpu_by_driver_name(unknown) is None


@pytest.mark.parametrize(
    ("load", "name", "kind", "offered"),
    [
        (presets.gpu, "a100-80g", "GPU", "a100-80gb"),
        (presets.gpu, "A100-80GB", "GPU", "a100-80gb"),
        (presets.gpu, "rtx4090", "GPU", "rtx-4090"),
        (presets.model, "gpt2-large ", "model", "gpt2-large"),
        (presets.model, "GPT2", "model", "gpt2"),
        (presets.recipe, "mixed_bf16", "recipe", "mixed-bf16"),
        (presets.price, "h100-80g", "GPU", "h100-80gb"),
    ],
)
def test_unknown_name_offers_the_nearest(load: Callable[[str], object], name: str, kind: str, offered: str) -> None:
    with pytest.raises(UnknownNameError) as caught:
        load(name)
    assert caught.value.what == f"unknown {kind} {name!r}"
    hint = caught.value.remedy.split("?")[0]
    assert hint.startswith("did you mean ") and offered in hint


@pytest.mark.parametrize(
    "name", ["../gpus/a100-80gb", "./a100-80gb", "a/b", "", ".", "..", "a100-80gb.toml", "*", "\0"]
)
@pytest.mark.parametrize("load", [presets.gpu, presets.model, presets.recipe, presets.price])
def test_a_path_is_an_unknown_name(load: Callable[[str], object], name: str) -> None:
    with pytest.raises(UnknownNameError):
        load(name)


@pytest.mark.parametrize("list_id", PRICE_LISTS)
def test_price_list(list_id: str) -> None:
    table = PRICE_LISTS[list_id]
    assert table["currency"] == "USD" and table["confidence"] in ("read", "low")
    assert table["date"].startswith(list_id.partition("-")[2])  # the order of the lists is read off their names
    for row in table["row"]:
        assert row["gpu"] in presets.gpu_ids() and row["source"] and row["provider"] and row["date"]
        assert 0.05 < row["usd_per_gpu_hour"] < 50
        assert row["kind"] in ("on-demand", "spot", "1-year commitment", "3-year commitment")


@pytest.mark.parametrize("id", presets.gpu_ids())
def test_price_is_the_median_of_the_newest_trusted_list(id: str) -> None:
    expected = {}
    for list_id, table in PRICE_LISTS.items():
        rows = [r["usd_per_gpu_hour"] for r in table["row"] if (r["gpu"], r["kind"]) == (id, "on-demand")]
        if rows and table["confidence"] == "read":
            expected[table["date"]] = (list_id, rows)
    found = presets.price(id)
    if not expected:
        assert found is None
        return
    list_id, rows = expected[max(expected)]
    assert found is not None and (found.list_id, found.rows) == (list_id, len(rows))
    assert found.usd_per_gpu_hour == pytest.approx(median(rows))
    assert (found.low_usd_per_gpu_hour, found.high_usd_per_gpu_hour) == (min(rows), max(rows))
    assert found.source and found.providers


def test_known_prices() -> None:
    h100 = presets.price("h100-80gb")
    assert h100 is not None and h100.list_id == "epoch-2025-03" and h100.high_usd_per_gpu_hour == 12.29
    assert presets.price("b200") is not None
    assert presets.price("mi300x") is None  # no list has it


# published bytes per parameter: weights, gradients, master, both moments of AdamW; sources in the files
RECIPES = {
    "mixed-bf16": (4, 4, 0, 8),
    "autocast": (4, 4, 0, 8),
    "mixed-fp16": (4, 4, 0, 8),
    "fp32": (4, 4, 0, 8),
    "tf32": (4, 4, 0, 8),
    "pure-bf16": (2, 2, 0, 4),
    "master-bf16": (2, 4, 4, 8),
    "master-bf16-grad16": (2, 2, 4, 8),
    "fp8-te": (2, 4, 4, 8),
    "fp8-torchao": (4, 4, 0, 8),
    "fp8-deepseek-v3": (2, 4, 4, 4),
}


def test_every_recipe_has_its_bytes() -> None:
    found = {}
    for id in presets.recipe_ids():
        r = presets.recipe(id)
        updated = r.master_weights_bytes_per_parameter or r.weights_bytes_per_parameter
        moment = {None: updated, "bf16": 2, "fp32": 4}[r.moments_dtype]
        found[id] = (r.weights_bytes_per_parameter, r.gradients_bytes_per_parameter,
                     r.master_weights_bytes_per_parameter, 2 * moment)  # fmt: skip
        assert r.compute_bytes == {"bf16": 2, "fp16": 2, "fp8": 2, "tf32": 4, "fp32": 4}[r.compute_dtype]
        assert r.runtime == ("autocast" if id == "autocast" else "eager")
        assert r.trainable is (r.compute_dtype != "fp8") and r.loss_scale is (r.compute_dtype == "fp16")
        assert (r.held_casts_bytes_per_linear_weight > 0) is (id in ("fp8-te", "fp8-deepseek-v3"))
    assert found == RECIPES
    assert sum(RECIPES["master-bf16"]) == 18 and sum(RECIPES["master-bf16-grad16"]) == 16
