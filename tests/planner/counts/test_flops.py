"""FLOPs by operator: sums, masks counted entry by entry, what each option adds, and the closed forms."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import pytest

from planner import presets
from planner.analysis.conventions import conventions, flops_per_token, parts_of
from planner.analysis.flops import flops_report
from planner.config.model import ModelConfig
from planner.config.run import RunConfig, TrainingConfig
from planner.counts.flops import (
    SCORES,
    VALUES,
    flops_of,
    keys_by_block,
    mask_entries_per_sequence,
    operators_of,
)
from planner.counts.parameters import parameters_of
from planner.counts.run import resolve
from planner.counts.shape import attended_keys, is_recomputed, recomputed_blocks, shape_of
from planner.formulas import flops
from planner.inputs.draft import draft
from planner.inputs.flags import Flags
from planner.plan import estimate
from planner.rules import rules


def config_of(model: str = "llama-3-8b", changes: dict[str, Any] | None = None, **training: Any) -> RunConfig:
    flags = Flags(model=model, tokens="1T", gpu="h100-80gb", micro_batch="1", accumulation="8")
    whole = draft(flags, as_of="2026-11-21", version="test")
    return whole.model_copy(
        update={
            "model": ModelConfig(**(whole.model.model_dump() | (changes or {}))),
            "training": TrainingConfig(**(whole.training.model_dump() | training)),
        }
    )


MOE = {"experts": 8, "top_k": 2, "expert_ffn": 512, "shared_ffn": 256, "first_dense_layers": 3}
MLA = {"kv_lora_rank": 128, "q_lora_rank": 256, "qk_nope_head_dim": 96, "qk_rope_head_dim": 32, "v_head_dim": 64}
SHAPES: dict[str, dict[str, Any]] = {
    "plain": {},
    "experts": {"moe": MOE},
    "latent": {"mla": MLA, "kv_heads": 32},
    "windows": {"sliding_window": 1024, "full_attention_every": 4},
    "all of them": {"moe": MOE, "mla": MLA, "kv_heads": 32, "sliding_window": 512},
}
SHAPE = pytest.mark.parametrize("changes", SHAPES.values(), ids=SHAPES)


@SHAPE
def test_operators_add_up_to_the_closed_form(changes: dict[str, Any]) -> None:
    config = config_of(changes=changes)
    operators, counts = operators_of(config), parameters_of(config.model)
    assert sum(o.weights for o in operators) == counts.active_linear
    assert sum(o.model for o in operators) == flops_of(resolve(config)).per_token_model
    assert all(o.backward == 2 * o.forward for o in operators)
    assert sum(keys_by_block(config.model, config.training.seq)) == attended_keys(config.model, config.training.seq)


@SHAPE
def test_parts_add_up_to_the_parameters(changes: dict[str, Any]) -> None:
    model = config_of(changes=changes).model
    parts = asdict(parts_of(model))
    assert sum(parts.values()) == parameters_of(model).total
    assert min(parts.values()) >= 0 and (parts["idle"] > 0) == (model.moe is not None)


@pytest.mark.parametrize("name", presets.model_ids())
def test_every_preset_has_flops_in_every_convention(name: str) -> None:
    config = config_of(name)
    assert sum(asdict(parts_of(config.model)).values()) == parameters_of(config.model).total
    counted = {c.id: flops_per_token(c, config.model, config.training.seq) for c in conventions()}
    assert counted["matmul-full"] == flops_of(resolve(config)).per_token_model
    assert counted["palm"] >= counted["nanogpt"] > counted["6n-total"] >= counted["6n-active"]
    assert counted["mask-exact"] > counted["megatron-causal"] or config.model.sliding_window or config.model.moe


@pytest.mark.parametrize(("seq", "window"), [(7, None), (7, 3), (8, 8), (8, 20), (9, 1)])
def test_mask_entries_are_counted(seq: int, window: int | None) -> None:
    """Against the mask itself, entry by entry: key j is seen by query i when i - window < j <= i."""
    model = config_of("gpt2", {"layers": 3, "sliding_window": window}).model
    seen = sum(1 for i in range(seq) for j in range(seq) if i - (window or seq) < j <= i)
    assert mask_entries_per_sequence(model, seq) == 3 * seen
    if window is None or window >= seq:
        assert seen / seq == (seq + 1) / 2


def test_every_kth_block_sees_all_keys() -> None:
    model = config_of("gpt2", {"layers": 7, "sliding_window": 4, "full_attention_every": 3}).model
    assert keys_by_block(model, 16) == (4, 4, 16, 4, 4, 16, 4)


# --- what is computed again ---------------------------------------------------------------------------------------


def again(config: RunConfig) -> dict[str, int]:
    return {o.name: o.recomputed for o in operators_of(config) if o.recomputed}


def test_the_closed_forms_of_recomputation() -> None:
    """Several formulas give the same: by operator, and in one line."""
    for kernel in ("flash", "math"):
        none, selective, full = (
            config_of(activation_checkpointing=mode, attention_kernel=kernel) for mode in ("none", "selective", "full")
        )
        s, counts = shape_of(none.model), parameters_of(none.model)
        keys = attended_keys(none.model, none.training.seq)
        flash = flops.flash_recompute_flops_per_token(s.query_width, keys) if kernel == "flash" else 0
        assert sum(again(none).values()) == flash
        core = flops.selective_checkpointing_flops_per_token(s.query_width, s.value_width, keys)
        # written out, P V is the core's last product: backward needs P and V, not their product
        core -= 0 if kernel == "flash" else flops.values_forward_flops_per_token(s.value_width, keys)
        assert sum(again(selective).values()) == flash + core
        blocks = counts.active_linear - s.vocab * s.hidden - s.layers * s.hidden * s.ffn
        assert sum(again(full).values()) == flash + flops.full_checkpointing_flops_per_token(
            blocks, s.query_width, s.value_width, keys
        )


def test_what_full_checkpointing_leaves_out() -> None:
    """The last product where only its inputs are needed; the head never is in a block."""
    full = {"activation_checkpointing": "full", "attention_kernel": "math"}
    assert "mlp.down" not in again(config_of(**full)) and "head" not in again(config_of(**full))
    assert "mlp.down" in again(config_of(**full, dropout=0.1))
    assert "mlp.down" in again(config_of(changes={"norm_placement": "post"}, **full))
    with_gate = config_of(changes={"moe": MOE | {"shared_gate": True}}, **full)
    assert again(with_gate).keys() >= {"mlp.experts.down", "mlp.shared.down", "mlp.router"}
    assert "mlp.shared.down" not in again(config_of(changes={"moe": MOE}, **full))


def test_one_of_k_blocks_is_recomputed() -> None:
    """Blocks 0, 3, 6 … of 32, which are 11: not a third of the sum."""
    every = config_of(activation_checkpointing="full", activation_checkpointing_every=3, attention_kernel="math")
    whole = config_of(activation_checkpointing="full", attention_kernel="math")
    assert again(every)["attention.qkv"] * 32 == again(whole)["attention.qkv"] * 11
    offloaded = config_of(activation_checkpointing="offloaded", attention_kernel="math")
    assert again(offloaded) == again(whole)


def test_a_chunked_loss_makes_the_head_twice() -> None:
    chunked, fused = (config_of(loss=loss, attention_kernel="math") for loss in ("chunked", "fused"))
    head = operators_of(chunked)[-1]
    assert (head.recomputed, head.recomputed_by) == (head.forward, ("chunked loss",))
    assert again(fused) == {}


def test_flash_makes_the_scores_again_and_not_the_values() -> None:
    flash = again(config_of())
    assert flash.keys() == {SCORES} and VALUES not in flash


# --- the table of conventions -------------------------------------------------------------------------------------


def test_the_table_is_whole() -> None:
    rows = rules("flops")["convention"]
    known = set(parts_of(config_of().model).__dataclass_fields__) | {"attention", "softmax", "keys"}
    known |= {"id", "kind", "formula", "used_by", "source", "note"}
    assert len({r["id"] for r in rows}) == len(rows)
    for row in rows:
        assert set(row) <= known, row["id"]
        assert row["used_by"] and len(row["source"]) > 10 and row["kind"] in ("model", "hardware")
        assert row.get("keys", "all") in ("all", "window", "mask")
        assert ("attention" in row) == ("keys" in row)
    for row in rules("flops")["denominator"]:
        assert set(row["gpus"]) <= set(presets.gpu_ids())


def test_a_sparse_rate_is_twice_the_dense_peak() -> None:
    """It is named sparse because it is: twice what the card's preset says of bf16 without sparsity."""
    for row in rules("flops")["denominator"]:
        for gpu in row["gpus"]:
            assert row["flops_rate"] == pytest.approx(2 * presets.gpu(gpu).peak_dense_flops["bf16"], rel=1e-3)


# --- the report ---------------------------------------------------------------------------------------------------


def test_the_report_says_what_the_plan_says() -> None:
    plan = estimate(config_of(activation_checkpointing="full"))
    report = flops_report(plan.config)
    assert report.totals.model_per_token == plan.flops.per_token_model
    assert report.totals.hardware_per_token == plan.flops.per_token_hardware
    assert report.totals.run_model == plan.flops.training_model
    assert report.totals.model_per_step == plan.flops.per_step_model
    assert sum(o.share for o in report.operators) == pytest.approx(1)
    by_id = {c.id: c for c in report.conventions}
    assert by_id["matmul-full"].utilisation == pytest.approx(plan.throughput.mfu.value, rel=1e-12)
    assert by_id["this-run-hardware"].utilisation == pytest.approx(plan.throughput.hfu, rel=1e-12)
    assert by_id["matmul-full"].ratio == 1
    (used,) = [d for d in report.denominators if d.used]
    assert (used.name, used.mfu) == ("bf16", pytest.approx(plan.throughput.mfu.value, rel=1e-12))


def test_what_is_unknown_stays_unknown() -> None:
    """An A100 has no fp8; a processor has no peak; a run without length has no total."""
    a100 = draft(Flags(model="gpt2", tokens="1B", gpu="a100-80gb"), as_of="2026-11-21", version="test")
    assert {d.name: d.flops_rate for d in flops_report(a100).denominators}["fp8"] is None
    cpu = draft(Flags(model="gpt2", steps="1", gpu="cpu", micro_batch="1"), as_of="2026-11-21", version="test")
    report = flops_report(cpu, horizon=False)
    assert report.denominators == () and report.tokens_per_second_per_gpu is None
    assert all(c.utilisation is None and c.run_flops is None for c in report.conventions)
    assert report.totals.run_model is None


def test_a_typed_count_has_its_own_line() -> None:
    plan = estimate(draft(Flags(params="125M", tokens="10B"), as_of="2026-11-21", version="test"))
    by_id = {c.id: c for c in flops_report(plan.config).conventions}
    assert by_id["6n-typed"].run_flops == 7.5e18
    assert by_id["6n-total"].run_flops == 6 * plan.parameters.total * 10e9


@pytest.mark.parametrize(("mode", "every"), [("none", 1), ("full", 1), ("full", 3), ("offloaded", 5)])
def test_as_many_blocks_are_recomputed_as_are_named(mode: str, every: int) -> None:
    training = config_of(activation_checkpointing=mode, activation_checkpointing_every=every).training
    for layers in (1, 6, 7):
        assert recomputed_blocks(training, layers) == sum(is_recomputed(training, block) for block in range(layers))
