"""A published row becomes the configuration that it describes, or is left out for a stated reason."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import accuracy, accuracy_mapping, accuracy_setup
from planner import presets
from planner.config.model import ModelConfig
from planner.errors import PlanError
from planner.plan import estimate
from tests.benchmarks.made_rows import case, outcome, row


def test_a_row_becomes_the_configuration_that_it_describes(tmp_path: Path) -> None:
    found = case(tmp_path)
    config = found.config
    assert (config.model.norm_parameters, config.model.position, config.model.biases) == ("gain+bias", "learned", "all")
    assert config.training.recipe == "mixed-bf16" and config.training.runtime == "autocast"
    assert config.training.attention_kernel == "flash" and config.training.accumulation == 2
    assert config.optimizer.implementation == "foreach"
    assert config.hardware.gpu == "a100-80gb"
    assert found.field == "peak_allocated_bytes" and not found.buckets


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"params_total": "124337664"}, {"biases": "none", "norm_parameters": "gain"}),
        ({"model": "Something-new", "params_total": ""}, {"biases": "all", "position": "learned"}),
        ({"model": "Llama-3-tiny", "mlp_type": "gated", "params_total": ""}, {"mlp": "swiglu", "norm": "rmsnorm"}),
        ({"model": "Qwen-0.1B", "mlp_type": "gated", "params_total": ""}, {"biases": "qkv"}),
    ],
)
def test_the_family_of_a_name_gives_what_the_columns_do_not(
    tmp_path: Path, changes: dict[str, str], expected: dict[str, str]
) -> None:
    model = case(tmp_path, **changes).config.model
    assert {key: getattr(model, key) for key in expected} == expected


def test_a_family_that_is_only_assumed_is_said_to_be(tmp_path: Path) -> None:
    assert "family assumed" in case(tmp_path, model="Something-new", params_total="").mapping
    assert "family assumed" not in case(tmp_path).mapping


@pytest.mark.parametrize(
    ("kind", "field"),
    [
        ("torch max_memory_allocated /1e9", "peak_allocated_bytes"),
        ("torch reserved peak, max over ranks", "peak_reserved_bytes"),
        ("nvidia-smi used (of 46068 MiB total)", "device_used_bytes"),
        ("torch peak", "peak_allocated_bytes"),
    ],
)
def test_the_predicted_quantity_follows_what_was_measured(tmp_path: Path, kind: str, field: str) -> None:
    assert case(tmp_path, peak_mem_kind=kind).field == field


def test_a_card_too_old_for_the_compiler_runs_eagerly(tmp_path: Path) -> None:
    assert case(tmp_path, compile="default").config.training.runtime == "compiled"
    assert case(tmp_path, compile="default", gpu="P100 SXM2 16GB").config.training.runtime == "autocast"


def test_a_source_says_what_no_column_does(tmp_path: Path) -> None:
    assert case(tmp_path, source="karpathy/nanoGPT issue").config.optimizer.implementation == "fused"
    assert case(tmp_path, notes="fused AdamW, torch 2.8").config.optimizer.implementation == "fused"
    languini = case(tmp_path, source_group="languini x", compile="default").config
    assert languini.optimizer.clip_norm is None and languini.training.runtime == "autocast"
    assert languini.model.mlp == "gelu"
    assert case(tmp_path, model="languini GPT tiny", params_total="").config.model.mlp == "gelu-written-out"


def test_ddp_buckets_are_one_more_copy_of_the_gradients(tmp_path: Path) -> None:
    one, two = outcome(tmp_path), outcome(tmp_path, sharding="ddp", dp="8", n_gpus="8")
    assert isinstance(one, accuracy.Scored) and isinstance(two, accuracy.Scored)
    assert two.predicted - one.predicted == estimate(one.case.config).memory.gradients_bytes > 0


EXCLUSIONS = {
    "not pre-training": {"task": "lora"},
    "sharded in another way": {"sharding": "homemade", "dp": "8", "n_gpus": "8"},
    "layout of several GPUs not stated": {"sharding": "", "dp": "", "n_gpus": "8"},
    "layout refused": {"tp": "5", "n_gpus": "5"},
    "micro-batches of a pipeline not stated": {"pp": "2", "n_gpus": "2", "grad_accum": ""},
    "not a dense model": {"arch": "moe"},
    "GPU not mapped": {"gpu": "Voodoo 5 6000"},
    "not a peak": {"outcome": "component"},
    "no measured size": {"peak_gib_per_gpu_min": "", "peak_gib_per_gpu_max": ""},
    "kind of memory not stated": {"peak_mem_kind": "as printed, probably nvidia-smi"},
    "recipe not counted": {"precision": "int8 mixed"},
    "precision unknown": {"precision": "posit16"},
    "attention kernel unknown": {"attn_kernel": "homemade"},
    "activation checkpointing not stated or not counted": {"act_ckpt": "unstated"},
    "compiler not counted": {"compile": "thunder sdpa+nvfuser"},
    "micro-batch or sequence not stated": {"micro_batch": ""},
    "model shape not stated": {"n_layers": ""},
    "model family unknown": {"model": "Something-new", "mlp_type": ""},
    "model not counted": {"n_kv_heads": "5", "params_total": ""},
    "parameter count contradicts the shape": {"params_total": "1300000000"},
}


@pytest.mark.parametrize("reason", EXCLUSIONS)
def test_a_row_that_cannot_be_scored_is_counted_under_its_reason(tmp_path: Path, reason: str) -> None:
    left = outcome(tmp_path, **EXCLUSIONS[reason])
    assert isinstance(left, accuracy.Left) and left.reason == reason
    assert isinstance(outcome(tmp_path), accuracy.Scored)  # the row without the change


@pytest.mark.parametrize(
    "changes",
    [{"tp": "2"}, {"pp": "2"}, {"cp": "2"}, {"sharding": "zero1 (DeepSpeed)"}, {"sharding": "", "n_gpus": "8"}],
)
def test_whatever_is_cut_up_among_gpus_is_sharded(tmp_path: Path, changes: dict[str, str]) -> None:
    assert accuracy_mapping.is_sharded(row(tmp_path, **changes))
    assert not accuracy_mapping.is_sharded(row(tmp_path, sharding="ddp", dp="8", n_gpus="8"))


def test_a_layout_becomes_the_configuration_that_it_describes(tmp_path: Path) -> None:
    columns = {"tp": "2", "pp": "2", "dp": "4", "n_gpus": "16", "sharding": "zero1 (DeepSpeed)", "vocab": "50304"}
    deepspeed = columns | {"precision": "fp16", "act_ckpt": "full", "source": "bigscience", "params_total": ""}
    found = case(tmp_path, **deepspeed)
    p, t = found.config.parallel, found.config.training
    assert (p.tp, p.pp, p.zero, p.sp, found.config.hardware.gpus, t.accumulation) == (2, 2, 1, False, 16, 2)
    assert (t.recipe, t.runtime, t.dropout) == ("master-bf16-grad16", "fused", 0.1)
    assert found.program == "deepspeed" and found.is_layout and not found.buckets
    torchtitan = case(tmp_path, **columns | {"sharding": "fsdp2", "source": "pytorch/torchtitan"}).config.parallel
    assert torchtitan.sp and torchtitan.fsdp


def test_buffers_of_deepspeed_lie_beside_the_plan(tmp_path: Path) -> None:
    layout = {"tp": "2", "dp": "4", "n_gpus": "8", "vocab": "50304", "params_total": "", "source": "bigscience"}
    for precision, zero in (("fp16", "zero1"), ("fp16", "ddp"), ("bf16 (fp32 grad accumulation)", "zero1")):
        found = outcome(tmp_path, precision=precision, sharding=zero, **layout)
        assert isinstance(found, accuracy.Scored) and found.case.program
        memory = estimate(found.case.config).memory
        held, updated = memory.weights_bytes // 2, memory.master_weights_bytes // 4
        table = 50304 // 2 * 768
        expected = {
            ("fp16", "zero1"): 2 * updated + 2 * held,
            ("fp16", "ddp"): 4 * updated,
            ("bf16 (fp32 grad accumulation)", "zero1"): 2 * held + 4 * table + 4 * held,
        }[precision, zero]
        assert found.predicted == memory.peak_allocated_bytes.value + expected  # type: ignore[operator]
        assert updated == (held if zero == "ddp" else pytest.approx(held / 4, rel=1e-3))


def test_a_refusal_of_the_planner_is_a_reason_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(config: object, replay: bool) -> None:
        raise PlanError("no such thing")

    monkeypatch.setattr(accuracy, "estimate", refuse)
    left = outcome(tmp_path)
    assert isinstance(left, accuracy.Left) and (left.reason, left.detail) == ("refused by the planner", "no such thing")


def test_the_names_in_the_tables_are_presets_and_options() -> None:
    known = set(presets.gpu_ids())
    assert {id for id in accuracy_setup._gpu_names().values() if id} <= known
    assert set(accuracy_setup.read_table("gpu_names")["compiler"]["too_old"]) <= known
    for entry in (*accuracy_setup.read_table("families")["family"], *accuracy_setup.read_table("families")["default"]):
        for variant in ({}, *entry.get("alternatives", ())):
            shape = {"layers": 2, "hidden": 64, "heads": 2, "kv_heads": 2, "head_dim": 32, "ffn": 128, "vocab": 99}
            rest = {"name": "x", "context": 16, "tied_embeddings": True, "source": entry["source"]}
            ModelConfig.model_validate(shape | rest | entry["shape"] | variant)
