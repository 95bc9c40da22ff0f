"""Defects seen in other calculators, each as a property that ours keeps: a test fails if one comes back.

EleutherAI/cookbook, cli99/llm-analysis, Megatron-LM, accelerate, the Ultrascale playbook's widget and others were run
on the same models; each test names the defect. What is shared out among devices comes with the layouts.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from planner import presets
from planner.analysis.conventions import conventions, flops_per_token
from planner.analysis.flops import flops_report
from planner.config.model import ModelConfig
from planner.config.run import RunConfig
from planner.counts.flops import operators_of
from planner.counts.parameters import parameters_of
from planner.inputs.draft import draft
from planner.inputs.flags import Flags
from planner.plan import Plan, estimate

LLAMA = Flags(
    model="llama-2-7b", tokens="1T", seq="4096", micro_batch="1", accumulation="8", gpu="h200", runtime="eager"
)


def planned(flags: Flags = LLAMA, **more: Any) -> Plan:
    return estimate(config_of(flags, **more))


def config_of(flags: Flags = LLAMA, **more: Any) -> RunConfig:
    return draft(replace(flags, **more), as_of="2026-11-21", version="test")


def flops_by_operator(plan: Plan) -> dict[str, int]:
    return {o.name: o.forward for o in operators_of(plan.config)}


# --- width of the MLP: cookbook prints the same FLOPs for 4,096, 11,008 and 49,152 --------------------------------


def test_the_width_of_the_mlp_matters() -> None:
    small, middle, large = (planned(ffn=str(f)) for f in (4096, 11008, 49152))
    for f, plan in ((4096, small), (11008, middle), (49152, large)):
        assert flops_by_operator(plan)["mlp.up"] == 2 * 32 * 4096 * f
    for key in ("total", "active", "non_embedding"):
        assert len({getattr(p.parameters, key) for p in (small, middle, large)}) == 3
    assert small.flops.training_model < middle.flops.training_model < large.flops.training_model
    peaks = [p.memory.peak_requested_bytes for p in (small, middle, large)]
    activations = [p.memory.activations_bytes for p in (small, middle, large)]
    assert peaks == sorted(set(peaks)) and activations == sorted(set(activations))


def test_a_ratio_that_is_no_whole_number_is_not_rounded() -> None:
    """11,008 over 4,096 is 2.6875: a whole ratio made Llama-2-7B 8.87 billion (cookbook)."""
    assert planned().parameters.total == 6_738_415_616
    odd = planned(ffn="11009")
    assert odd.parameters.total - planned().parameters.total == 3 * 32 * 4096


def test_a_gated_mlp_has_three_matrices() -> None:
    """A 72B model was printed as 56.2B with two (cookbook issue 36; Megatron-LM PR 682 for FLOPs)."""
    gated = config_of(family="llama", model=None, layers="2", hidden="256", heads="4", ffn="1024", vocab="512")
    plain = config_of(family="gpt2", model=None, layers="2", hidden="256", heads="4", ffn="1024", vocab="512")
    names = [[o.name for o in operators_of(c) if o.name.startswith("mlp")] for c in (gated, plain)]
    assert names == [["mlp.gate", "mlp.up", "mlp.down"], ["mlp.up", "mlp.down"]]


# --- grouped heads: no change of activations, or of FLOPs (cookbook, NeMo's Nemotron README) ----------------------


def test_grouped_heads_change_activations_weights_and_projections() -> None:
    whole, grouped = planned(), planned(kv_heads="8")
    assert grouped.memory.activations_bytes < whole.memory.activations_bytes
    assert grouped.parameters.total < whole.parameters.total
    before, after = flops_by_operator(whole), flops_by_operator(grouped)
    assert after["attention.qkv"] == before["attention.qkv"] // 2
    assert {k: v for k, v in after.items() if k != "attention.qkv"} == {
        k: v for k, v in before.items() if k != "attention.qkv"
    }


# --- recomputation ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", ["llama-2-7b", "gpt2", "gpt-3-175b"])
def test_selective_recomputation_is_between_none_and_full(model: str) -> None:
    """llm-analysis counted it once per layer too often: 990 ms against 548 ms with full."""
    seq = "1024" if model == "gpt2" else "2048"
    none, selective, full = (
        planned(replace(LLAMA, model=model, seq=seq), activation_checkpointing=mode)
        for mode in ("none", "selective", "full")
    )
    flops = [p.flops.training_hardware for p in (none, selective, full)]
    assert flops == sorted(set(flops))
    seconds = [p.throughput.step_seconds.value or 0.0 for p in (none, selective, full)]
    assert seconds[0] < seconds[1] < seconds[2]
    assert len({p.flops.training_model for p in (none, selective, full)}) == 1
    # never more than a whole forward pass again, flash attention's scores aside
    report = flops_report(full.config).totals
    flash = flops_by_operator(full)["attention.scores"]
    assert report.hardware_per_token - report.model_per_token - flash < report.forward_per_token


@pytest.mark.parametrize("model", ["llama-2-7b", "gpt2"])
def test_full_recomputation_is_not_the_same_memory_as_none(model: str) -> None:
    """Megatron-LM's report gives 18,591.33 MiB for both."""
    seq = "1024" if model == "gpt2" else "4096"
    none, selective, full = (
        planned(replace(LLAMA, model=model, seq=seq), activation_checkpointing=mode).memory
        for mode in ("none", "selective", "full")
    )
    assert full.activations_bytes < 0.5 * none.activations_bytes
    assert full.peak_requested_bytes < none.peak_requested_bytes
    assert full.activations_bytes < selective.activations_bytes <= none.activations_bytes


# --- models that could not be loaded ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("hidden", "ffn", "heads", "kv"), [(4096, 11008, 32, 32), (2048, 5632, 16, 16), (256, 1, 8, 1)]
)
def test_a_hugging_face_config_of_any_width_loads(tmp_path: Path, hidden: int, ffn: int, heads: int, kv: int) -> None:
    """llm-analysis: UnboundLocalError unless the width is 3.5 times the model's, AssertionError for 5,632 on 2,048."""
    file = tmp_path / "config.json"
    values = {"model_type": "llama", "hidden_size": hidden, "intermediate_size": ffn, "num_attention_heads": heads}
    values |= {"num_key_value_heads": kv, "num_hidden_layers": 2, "vocab_size": 1000, "max_position_embeddings": 2048}
    file.write_text(json.dumps(values), encoding="utf-8")
    plan = planned(Flags(hf_config=str(file), tokens="1B", seq="1024", gpu="h200"))
    key = kv * hidden // heads
    block = 2 * hidden * hidden + 2 * hidden * key + 3 * hidden * ffn + 2 * hidden
    assert plan.parameters.total == 2 * block + 2 * 1000 * hidden + hidden


# --- totals are sums ----------------------------------------------------------------------------------------------


def test_totals_are_sums_and_not_maxima() -> None:
    """accelerate prints the largest part as the whole: 50 GiB for a 7B in half precision instead of 113."""
    plan = planned()
    m = plan.memory
    states = m.weights_bytes + m.master_weights_bytes + m.gradients_bytes + m.optimizer_bytes
    assert sum(m.at_peak.values()) == m.peak_requested_bytes
    assert m.peak_requested_bytes > states > max(m.weights_bytes, m.gradients_bytes, m.optimizer_bytes)
    counters = states - 16 * plan.parameters.total  # 4 bytes of optimizer state per tensor hold its step
    assert counters in (0, 4 * plan.parameters.tensors)
    report = flops_report(plan.config)
    assert sum(o.hardware_per_step for o in report.operators) == report.totals.hardware_per_step
    assert report.totals.hardware_per_token > max(o.forward_per_token for o in report.operators) * 3


def test_the_logits_are_not_forgotten() -> None:
    """A vocabulary of 128,256 at 8,192 tokens: 3.9 GiB in fp32 that several calculators leave out."""
    m = planned(replace(LLAMA, model="llama-3-8b", seq="8192")).memory
    assert m.logits_bytes >= 4 * 8192 * 128_256


def test_the_longest_sequence_is_no_free_lunch() -> None:
    """Scores grow with the sequence in every convention that has them, weights in none."""
    short, long = (config_of(seq=s) for s in ("2048", "4096"))
    for c in conventions():
        before, after = (flops_per_token(c, x.model, x.training.seq) for x in (short, long))
        assert (after > before) == (c.attention > 0), c.id


# --- presets ------------------------------------------------------------------------------------------------------


def test_llama_3_8b_is_llama_3_8b() -> None:
    """The widget's preset has a vocabulary of 30,522 and an MLP of 16,384."""
    shape = presets.model("llama-3-8b").shape
    assert (shape["vocab"], shape["ffn"], shape["kv_heads"], shape["hidden"]) == (128_256, 14_336, 8, 4096)


def test_llama_2_7b_has_the_gated_width() -> None:
    """llm-analysis ships it ungated, with 16,384."""
    shape = presets.model("llama-2-7b").shape
    assert (shape["ffn"], shape["mlp"]) == (11_008, "swiglu")


@pytest.mark.parametrize("name", presets.model_ids())
def test_a_preset_is_the_model_of_its_name(name: str) -> None:
    """Untied tables counted as tied made a 7B model 6.61 billion; every preset has its published count."""
    found = presets.model(name)
    model = ModelConfig(name=name, source=found.source, **found.shape)
    assert parameters_of(model).total == found.published_parameters


# --- utilisation --------------------------------------------------------------------------------------------------


def test_mfu_is_of_this_card_and_this_type() -> None:
    """nanoGPT divides by an A100's peak whatever the card; torchtitan once by tf32's, and by a sparse rate."""
    for gpu in ("a100-80gb", "h100-80gb", "h200"):
        plan = planned(gpu=gpu, tflops="100")
        peak = presets.gpu(gpu).peak_dense_flops["bf16"]
        rate = plan.flops.per_token_model * (plan.throughput.tokens_per_second_per_gpu or 0)
        assert plan.throughput.mfu.value == pytest.approx(rate / peak, rel=1e-12)
        names = {d.name: d for d in flops_report(plan.config).denominators}
        assert names["bf16"].used and not names["tf32"].used
        if "sparse-bf16" in names:
            assert names["sparse-bf16"].mfu == pytest.approx((plan.throughput.mfu.value or 0) / 2, rel=1e-3)


def test_an_unknown_card_is_refused_and_never_another_ones_number() -> None:
    """torchtitan falls back to an A100: 152 and 563 % MFU were reported."""
    from planner.errors import UnknownNameError

    with pytest.raises(UnknownNameError):
        config_of(gpu="h999")


# --- explanations -------------------------------------------------------------------------------------------------


def test_a_convention_written_out_gives_its_value() -> None:
    """alloc explains 25.10 GB as "6.738B x 2 bytes": here each part times its factor is the number beside it."""
    config = config_of()
    by_id = {c.id: c for c in flops_report(config).conventions}
    n, tables, width_keys = 6_738_415_616, 2 * 32000 * 4096, 2 * 4096 * 32 * 4096
    assert by_id["6n-total"].formula == "6·N" and by_id["6n-total"].flops_per_token == 6 * n
    assert by_id["6n-non-embedding"].flops_per_token == 6 * (n - tables)
    assert by_id["palm"].flops_per_token == 6 * n + 6 * width_keys
    assert by_id["palm-recomputed"].flops_per_token == pytest.approx(4 / 3 * by_id["palm"].flops_per_token)
    assert by_id["palm"].run_flops == by_id["palm"].flops_per_token * 10**12


def test_mixtures_count_what_a_token_meets() -> None:
    """Memory of a mixture from active parameters, and FLOPs from all: llmfit issue 230, Megatron-LM issue 1784."""
    moe = {"experts": 8, "top_k": 2, "expert_ffn": 14336}
    config = config_of(replace(LLAMA, model="mistral-7b-v0.1"))
    mixed = config.model_copy(update={"model": ModelConfig(**(config.model.model_dump() | {"moe": moe}))})
    counts = parameters_of(mixed.model)
    # Mixtral 8x7B: its checkpoint's count, and the 12.9 billion active of its paper (arXiv 2401.04088)
    assert (counts.total, round(counts.active / 1e8)) == (46_702_792_704, 129)
    experts = {o.name: o.weights for o in operators_of(mixed) if o.name.startswith("mlp.experts")}
    assert experts == {f"mlp.experts.{name}": 2 * 32 * 4096 * 14336 for name in ("gate", "up", "down")}
    by_id = {c.id: flops_per_token(c, mixed.model, 4096) for c in conventions()}
    assert by_id["6n-active"] == 6 * counts.active < by_id["6n-total"] == 6 * counts.total
