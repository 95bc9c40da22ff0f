"""The predicted time of a step on a GPU: every option has a price, no step beats the card, published speeds."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from planner.counts.run import resolve
from planner.inputs.draft import draft
from planner.inputs.flags import Flags
from planner.plan import Plan, estimate
from planner.step_time.rates import Rates, rates_of

BASE = {
    **{"model": "gpt2", "vocab": "50304", "seq": "1024", "micro_batch": "16", "accumulation": "1", "steps": "10"},
    **{"gpu": "a100-80gb", "recipe": "mixed-bf16", "software": "pytorch-2024", "runtime": "eager"},
}


def planned(**texts: str) -> Plan:
    return estimate(draft(Flags(**BASE | texts), as_of="2026-11-27", version="test"))


def seconds(**texts: str) -> float:
    found = planned(**texts).throughput.step_seconds.value
    assert found is not None, texts
    return found


# each change against the base, or against the first of a pair: what executes or moves more takes longer
SLOWER: dict[str, tuple[dict[str, str], dict[str, str]]] = {
    "full checkpointing": ({}, {"activation_checkpointing": "full"}),
    "every second block": (
        {"activation_checkpointing": "full", "activation_checkpointing_every": "2"},
        {"activation_checkpointing": "full"},
    ),
    "selective checkpointing": ({}, {"activation_checkpointing": "selective"}),
    "offloading": ({"activation_checkpointing": "full"}, {"activation_checkpointing": "offloaded"}),
    "chunked loss": ({}, {"loss_kind": "chunked"}),
    "fused loss": ({}, {"loss_kind": "fused"}),
    "dropout": ({}, {"dropout": "0.1"}),
    "written-out attention": ({}, {"attention": "math"}),
    "document masking": ({}, {"document_masking": "yes"}),
    "a window that binds": ({}, {"sliding_window": "128"}),
    "ALiBi": ({"position": "none"}, {"position": "alibi"}),
    "a GELU in separate operators": ({}, {"mlp": "gelu-written-out"}),
    "a vocabulary that is no multiple of 8": ({}, {"vocab": "50257"}),
    "norms of queries and keys": ({}, {"qk_norm": "head"}),
    "norms after": ({}, {"norm_placement": "both"}),
    "eager instead of compiled": ({"runtime": "compiled"}, {}),
    "fp32": ({}, {"recipe": "fp32"}),
    "tf32": ({}, {"recipe": "tf32"}),
    "AdamW foreach": ({}, {"optimizer_implementation": "foreach"}),
    "AdamW for-loop": ({"optimizer_implementation": "foreach"}, {"optimizer_implementation": "for-loop"}),
    "Muon": ({}, {"optimizer": "muon"}),
    "Adafactor": ({}, {"optimizer": "adafactor"}),
    "AdamW instead of SGD": ({"optimizer": "sgd"}, {}),
    "fp32 moments": ({"state_dtype": "bf16"}, {"optimizer_implementation": "for-loop"}),
    "clipping": ({"clip_norm": "0"}, {}),
    "clipping by value": ({}, {"clip_value": "1"}),
    "smaller micro-batches": ({}, {"micro_batch": "1", "accumulation": "16"}),
    "experts": ({}, {"experts": "8", "top_k": "2"}),
    "more experts": ({"experts": "8", "top_k": "2"}, {"experts": "16", "top_k": "2"}),
    "more experts of a token": ({"experts": "8", "top_k": "2"}, {"experts": "8", "top_k": "4"}),
    "an odd head width": (
        {"heads": "27", "kv_heads": "27", "head_dim": "32"},
        {"heads": "24", "kv_heads": "24", "head_dim": "36"},
    ),
    "DDP": ({}, {"gpus": "8", "model": "gpt2-xl", "micro_batch": "1"}),
    "more nodes": ({"gpus": "8"}, {"gpus": "64"}),
    "weights gathered twice": (
        {"gpus": "64", "fsdp": "fsdp", "micro_batch": "1", "reshard": "no"},
        {"gpus": "64", "fsdp": "fsdp", "micro_batch": "1"},
    ),
    "older kernels": ({"gpu": "h100-80gb"}, {"gpu": "h100-80gb", "software": "pytorch-2023"}),
    "a card of 500 W": ({"gpu": "h100-80gb"}, {"gpu": "h100-96gb-hbm2e"}),
}


@pytest.mark.parametrize("pair", SLOWER.values(), ids=SLOWER.keys())
def test_what_executes_or_moves_more_takes_longer(pair: tuple[dict[str, str], dict[str, str]]) -> None:
    less, more = pair
    assert seconds(**less) < seconds(**more)


def test_written_out_attention_left_the_tensor_cores_with_odd_heads_until_2022() -> None:
    def attention(head_dim: int, **texts: str) -> float:
        heads = {"heads": "12", "kv_heads": "12", "head_dim": str(head_dim), "attention": "math"}
        return planned(**heads, **texts).throughput.parts["attention"] / head_dim

    old, new = {"software": "megatron-2021", "runtime": "fused"}, {"software": "pytorch-2026", "runtime": "compiled"}
    assert attention(150, **old) > 2.5 * attention(152, **old)
    assert attention(152, **new) < attention(150, **new) < 1.5 * attention(152, **new)
    fp32 = {"recipe": "fp32", "software": "pytorch-2026"}
    assert attention(150, **fp32) == pytest.approx(attention(152, **fp32), rel=0.02)  # no tensor cores to leave


def test_experts_of_a_grouped_kernel_are_called_at_once() -> None:
    def launches(**texts: str) -> float:
        few, many = ({"experts": n, "top_k": "2", "micro_batch": "1", "expert_ffn": "512"} | texts for n in ("8", "64"))
        return planned(**many).throughput.parts["launch overhead"] / planned(**few).throughput.parts["launch overhead"]

    assert launches(software="pytorch-2024") > 4
    assert launches(software="pytorch-2026") < 1.5
    assert launches(software="pytorch-2026", recipe="mixed-fp16") > 4  # the kernel is for bf16
    assert launches(software="pytorch-2026", expert_ffn="508") > 4  # and for rows of whole 16 bytes


def test_compiled_programs_pad_their_products() -> None:
    odd, padded = seconds(runtime="compiled", vocab="50257"), seconds(runtime="compiled")
    assert odd == pytest.approx(padded, rel=0.01)


def test_a_window_that_does_not_bind_costs_nothing() -> None:
    assert seconds(sliding_window="1024") == seconds()


GPUS = ("a100-80gb", "h100-80gb", "h200", "v100-32gb", "rtx-4090", "rtx-5090", "l4", "b200", "mi300x", "t4")


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from(GPUS),
    st.sampled_from(["autocast", "compiled", "eager"]),
    st.sampled_from(
        ["megatron-2021", "gpt-neox-2023", "pytorch-2023", "pytorch-2024", "pytorch-2026", "transformer-engine-2024"]
    ),
    st.sampled_from(["gpt2", "gpt2-xl", "llama-3-8b", "mixtral-8x7b", "deepseek-v2-lite"]),
    st.sampled_from(["none", "selective", "full"]),
    st.integers(1, 64),
)
def test_no_step_is_faster_than_the_card(
    gpu: str, runtime: str, software: str, model: str, mode: str, micro: int
) -> None:
    recipe = "mixed-fp16" if gpu in ("v100-32gb", "t4") else "mixed-bf16"
    texts = {"gpu": gpu, "runtime": runtime, "software": software, "model": model, "recipe": recipe}
    texts |= {"activation_checkpointing": mode, "micro_batch": str(micro)}
    texts |= {} if model.startswith("gpt2") else {"vocab": ""}
    plan = planned(**{k: v for k, v in texts.items() if v}) if model.startswith("gpt2") else _preset_plan(texts)
    step, run = plan.throughput.step_seconds, plan.run
    if step.value is None:
        assert plan.throughput.why_unknown
        return
    rates = rates_of(run)
    assert isinstance(rates, Rates) and run.gpu is not None and step.low is not None
    assert sum(plan.throughput.parts.values()) == pytest.approx(step.value)
    assert all(part >= 0 for part in plan.throughput.parts.values())
    peak = run.gpu.peak_dense_flops[run.recipe.compute_dtype]
    executed = plan.flops.per_token_model_causal * run.tokens_per_step
    assert step.low >= 0.99 * executed / peak


def _preset_plan(texts: dict[str, str]) -> Plan:
    words = {name: text for name, text in (BASE | texts).items() if name != "vocab"}
    return estimate(draft(Flags(**words), as_of="2026-11-27", version="test"))


def test_assumed_software_has_the_wider_interval() -> None:
    typed, words = planned(), {name: text for name, text in BASE.items() if name != "software"}
    assumed = estimate(draft(Flags(**words), as_of="2026-11-27", version="test"))
    assert any(a.key == "software" for a in assumed.config.provenance.assumptions)
    assert (assumed.throughput.step_seconds.width or 0) > 1.2 * (typed.throughput.step_seconds.width or 0) > 0


# GPT-2 124M, 16 sequences of 1,024, on an A100 80 GB: a public walk-through that adds one change after the other
# (github.com/karpathy/build-nanogpt and its lecture, 2024), tokens per second
WALK_THROUGH: dict[str, tuple[float, dict[str, str]]] = {
    "TF32": (49_000, {"recipe": "tf32", "attention": "math", "runtime": "eager"}),
    "autocast": (54_700, {"attention": "math", "runtime": "autocast"}),
    "compiled": (126_000, {"attention": "math", "runtime": "compiled"}),
    "flash attention": (170_000, {"runtime": "compiled"}),
    "padded vocabulary": (178_000, {"runtime": "compiled", "vocab": "50304"}),
}


@pytest.mark.parametrize(("speed", "texts"), WALK_THROUGH.values(), ids=WALK_THROUGH.keys())
def test_speeds_of_a_public_walk_through_lie_in_their_intervals(speed: float, texts: dict[str, str]) -> None:
    found = planned(**{"vocab": "50257"} | texts).throughput.tokens_per_second
    assert found.low is not None and found.high is not None
    assert found.low <= speed <= found.high


@pytest.mark.parametrize(
    ("texts", "words"),
    [
        ({"gpu": "v100-32gb"}, "no peak in bf16"),
        ({"gpu": "cpu"}, "gptplan calibrate"),
        ({"gpu": "v100-32gb", "mfu": "0.4"}, "of which MFU is a fraction"),
    ],
)
def test_an_unknown_speed_says_why(texts: dict[str, str], words: str) -> None:
    found = planned(**texts).throughput
    assert found.step_seconds.value is None and words in found.why_unknown


def test_resolved_runs_price_the_same_twice() -> None:
    plan = planned()
    assert estimate(plan.config).throughput == plan.throughput and resolve(plan.config) == plan.run
