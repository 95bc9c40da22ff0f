"""The plan of a named attention kernel, and of keys and values that are repeated for it, against PyTorch's."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from benchmarks.memory_reference import first_difference
from planner.config.run import RunConfig
from planner.counts.attention import repeating_blocks
from planner.counts.run import resolve
from planner.errors import PlanError
from planner.inputs.draft import draft
from planner.inputs.flags import Flags
from planner.memory.eager.context import SimulationContext, simulation_context
from planner.memory.eager.sdpa import _log_sum_exps
from planner.memory.phases import simulate_run
from planner.plan import estimate
from planner.step_time.blocks import attention_seconds
from planner.step_time.rates import Rates, rates_of
from reference_trainer.model import attention
from reference_trainer.model.attention_kernels import ChosenKernel

SMALL = Flags(
    family="llama", layers="3", hidden="64", heads="4", kv_heads="2", vocab="96", seq="32", micro_batch="2",
    accumulation="1", steps="10", gpu="a100-80gb",
)  # fmt: skip


def config_of(**more: str | None) -> RunConfig:
    return draft(replace(SMALL, **more), as_of="2026-11-27", version="test")


def changed(config: RunConfig, **model: Any) -> RunConfig:
    return config.model_copy(update={"model": config.model.model_copy(update=model)})


@pytest.mark.parametrize("checkpointing", ["none", "selective", "full"])
def test_repeated_keys_and_values_are_allocated_as_planned(monkeypatch: pytest.MonkeyPatch, checkpointing: str) -> None:
    """On a CPU both sides are told that the kernel wants all heads; every allocation of a micro-batch is compared."""
    config = config_of(gpu="cpu", document_masking="yes", activation_checkpointing=checkpointing)
    assert first_difference(config) == ""
    monkeypatch.setattr(SimulationContext, "kernel", lambda self, masked: "efficient")
    assert first_difference(config) != "", "the plan counts the copies"
    monkeypatch.setattr(attention, "choose_kernel", lambda *_: ChosenKernel("memory-efficient", repeats=True))
    assert first_difference(config) == ""


@pytest.mark.parametrize(
    ("flags", "model", "kernel", "repeated"),
    [
        ({"document_masking": "yes"}, {}, "efficient", 3),
        ({"document_masking": "yes", "gpu": "h200"}, {}, "cudnn", 0),
        ({"document_masking": "yes", "gpu": "h200", "dropout": "0.1"}, {}, "efficient", 3),
        ({"document_masking": "yes", "kv_heads": "4"}, {}, "efficient", 0),
        ({}, {"sliding_window": 8, "full_attention_every": 3}, "efficient", 2),
        ({"recipe": "fp32"}, {}, "efficient", 3),
        ({}, {}, "flash", 0),
        ({"attention": "efficient", "gpu": "h200"}, {}, "efficient", 3),
        ({"attention": "cudnn", "gpu": "h200"}, {}, "cudnn", 0),
    ],
    ids=str,
)
def test_a_plan_counts_the_copies_in_bytes_and_in_time(
    flags: dict[str, str], model: dict[str, Any], kernel: str, repeated: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = resolve(changed(config_of(**{"runtime": "eager"} | flags), **model))
    masked = "document_masking" in flags or bool(model)
    context = simulation_context(run, cuda=True)
    assert context.kernel(masked) == kernel
    saved = simulate_run(run, on_gpu=True).saved_by_operator
    assert repeating_blocks(run) == repeated
    rates = rates_of(run)
    assert isinstance(rates, Rates)
    seconds = attention_seconds(run, rates)
    monkeypatch.setattr("planner.memory.eager.sdpa.repeats_keys", lambda kernel: False)
    monkeypatch.setattr("planner.counts.attention.repeats_keys", lambda kernel: False)
    more = sum(saved.values()) - sum(simulate_run(run, on_gpu=True).saved_by_operator.values())
    s, tokens = run.shape, run.config.training.micro_batch * run.config.training.seq
    # keys and values of all heads; but the projections' output and the rotated keys are no longer saved
    each = 2 * s.query_width - (s.query_width + 2 * s.key_width) - s.key_width
    assert more == repeated * tokens * each * run.recipe.compute_bytes
    copies = repeated * 4 * (s.query_width + s.key_width) * tokens * run.recipe.compute_bytes
    assert seconds - attention_seconds(run, rates) == pytest.approx(copies / rates.bandwidth, rel=1e-6, abs=1e-15)


@pytest.mark.parametrize(("seq", "heads"), [(32, 4), (40, 3)])
def test_statistics_of_every_kernel_are_pytorchs(seq: int, heads: int) -> None:
    query = torch.empty(2, heads, seq, 16, dtype=torch.bfloat16, device="meta")
    ops = torch.ops.aten
    made = {
        "flash": ops._scaled_dot_product_flash_attention(query, query, query, 0.0, True),
        "efficient": ops._scaled_dot_product_efficient_attention(query, query, query, None, True, 0.0, True),
        "cudnn": ops._scaled_dot_product_cudnn_attention(query, query, query, None, True, 0.0, True),
    }
    config = changed(config_of(seq=str(seq)), heads=heads, kv_heads=heads)
    context = simulation_context(resolve(config), cuda=True)
    for kernel, (out, statistics, *_) in made.items():
        assert out.numel() == query.numel() and out.dtype == query.dtype
        assert statistics.dtype == torch.float32
        assert statistics.numel() == _log_sum_exps(context, kernel), kernel


@pytest.mark.parametrize(
    ("gpu", "kernel", "timed"),
    [
        ("a100-80gb", "flash-only", True),
        ("a100-80gb", "cudnn", False),
        ("a100-80gb", "efficient", False),
        ("h200", "cudnn", True),
        ("h200", "efficient", True),
        ("h200", "flash-only", False),
    ],
)
def test_the_speed_of_a_kernel_that_was_not_measured_is_unknown_and_says_so(gpu: str, kernel: str, timed: bool) -> None:
    plan = estimate(config_of(gpu=gpu, attention=kernel))
    assert (plan.throughput.step_seconds.value is not None) == timed
    if not timed:
        assert f'attention_kernel = "{kernel}"' in str(plan.throughput)
    allocated, chosen = plan.memory.peak_allocated_bytes, estimate(config_of(gpu=gpu)).memory.peak_allocated_bytes
    assert allocated.low and allocated.high and chosen.low and chosen.high
    wider = allocated.high - allocated.low > chosen.high - chosen.low
    assert wider == (kernel != "flash-only"), "the scratch of their backward was compared with no run"


REFUSED = {
    "cudnn on a CPU": ({"gpu": "cpu", "attention": "cudnn"}, {}, "CUDA only"),
    "efficient on a CPU": ({"gpu": "cpu", "attention": "efficient"}, {}, "CUDA only"),
    "flash with dropout on a CPU": ({"gpu": "cpu", "attention": "flash-only", "dropout": "0.1"}, {}, "dropout"),
    "flash with documents": ({"attention": "flash-only", "document_masking": "yes"}, {}, "mask"),
    "flash in fp32": ({"attention": "flash-only", "recipe": "fp32"}, {}, "16 bits"),
    "cudnn in fp32": ({"attention": "cudnn", "recipe": "fp32"}, {}, "16 bits"),
    "cudnn drops sixteenths": ({"attention": "cudnn", "dropout": "0.1"}, {}, "sixteenths"),
    "narrow heads": ({"attention": "cudnn", "hidden": "48"}, {}, "multiple of 8"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_kernel_that_the_device_has_not_is_refused_by_name(case: str) -> None:
    flags, model, word = REFUSED[case]
    with pytest.raises(PlanError, match=word) as refused:
        estimate(changed(config_of(**flags), **model))
    assert str(flags["attention"]) in str(refused.value)
