"""Seconds of layouts: published steps inside the interval, and how bubble, collectives and transfers depend on them."""

from __future__ import annotations

import math

import pytest

from planner.formulas.collectives import key_ring_seconds, transfers_seconds
from planner.inputs.draft import draft
from planner.inputs.flags import Flags
from planner.plan import Plan, estimate

LLAMA = {"model": "llama-3-8b", "seq": "8192", "micro_batch": "1", "accumulation": "16", "steps": "10"}


def planned(**texts: str) -> Plan:
    return estimate(draft(Flags(**{"gpu": "h100-80gb"} | texts), as_of="2026-11-27", version="test"))


def parts(**texts: str) -> dict[str, float]:
    return planned(**LLAMA | texts).throughput.parts


# Korthikanti et al. 2022 (arXiv 2205.05198), table 5: seconds of an iteration on A100 80 GB, TP 8: (layers, hidden,
# heads, stages, chunks, micro-batch, micro-batches), full recomputation, and selective with sequence parallelism
KORTHIKANTI = [
    ((48, 6144, 64, 1, 1, 4, 1), 1.42, 1.10),
    ((96, 12288, 96, 8, 3, 1, 64), 18.13, 13.75),
    ((105, 20480, 128, 35, 3, 1, 280), 49.05, 37.83),
    ((128, 25600, 160, 64, 1, 1, 512), 94.42, 71.49),
]


@pytest.mark.parametrize(("shape", "full", "selective"), KORTHIKANTI, ids=["22B", "175B", "530B", "1T"])
def test_megatron_s_iterations(shape: tuple[int, ...], full: float, selective: float) -> None:
    layers, hidden, heads, pp, chunks, micro, times = map(str, shape)
    sizes = {"layers": layers, "hidden": hidden, "heads": heads, "micro_batch": micro, "accumulation": times}
    how = {"family": "gpt2", "vocab": "51200", "seq": "2048", "steps": "10", "gpu": "a100-80gb", "dropout": "0.1"}
    how |= {"recipe": "master-bf16", "runtime": "fused", "software": "megatron-2021", "attention": "math", "tp": "8"}
    how |= {"pp": pp, "interleave": chunks, "pp_schedule": "interleaved"} if chunks != "1" else {"pp": pp}
    for seconds, mode in ((full, {"activation_checkpointing": "full"}), (selective, SELECTIVE)):
        step = planned(**sizes | how | mode).throughput.step_seconds.value
        assert step is not None and abs(math.log(step / seconds)) < 0.27


SELECTIVE = {"activation_checkpointing": "selective", "sp": "sp"}


@pytest.mark.parametrize(("dp", "accumulation", "tflops"), [("64", "32", 430), ("128", "16", 400)])
def test_llama_3_405b(dp: str, accumulation: str, tflops: float) -> None:
    # Llama 3 (arXiv 2407.21783), table 4: BF16 TFLOP/s per GPU on 8,192 and 16,384 H100
    how = {"tp": "8", "sp": "sp", "pp": "16", "interleave": "8", "pp_schedule": "interleaved", "zero": "1", "dp": dp}
    how |= {"recipe": "master-bf16", "runtime": "fused", "software": "transformer-engine-2024", "seq": "8192"}
    plan = planned(model="llama-3.1-405b", steps="10", micro_batch="1", accumulation=accumulation, **how)
    speed = plan.throughput.tokens_per_second_per_gpu
    assert speed is not None
    assert abs(math.log(plan.flops.per_token_model * speed / 1e12 / tflops)) < 0.11


def test_bubble_by_schedule() -> None:
    plain = parts(pp="4")
    micro = (plain["pipeline bubble"] / 3, sum(plain[name] for name in OF_A_MICRO_BATCH) / 16)
    assert micro[0] == pytest.approx(micro[1])
    assert parts(pp="4", accumulation="32")["pipeline bubble"] == pytest.approx(plain["pipeline bubble"])
    chunks = parts(pp="4", interleave="2", pp_schedule="interleaved")["pipeline bubble"]
    assert chunks == pytest.approx(plain["pipeline bubble"] / 2, rel=0.05)
    assert parts(pp="4", pp_schedule="zero-bubble")["pipeline bubble"] < 0.4 * plain["pipeline bubble"]
    assert parts(pp="4", pp_schedule="dualpipe")["pipeline bubble"] < 0.4 * plain["pipeline bubble"]


OF_A_MICRO_BATCH = (
    *("matrix products", "attention", "element-wise", "head and loss", "offloading", "launch overhead"),
    *("tensor parallel", "context parallel", "expert parallel", "stage transfers"),
)


def test_tensor_parallelism_beyond_a_server_is_slow_and_a_rack_is_one() -> None:
    shared = {"model": "gpt-3-175b", "pad_vocab": "1024", "seq": "2048"}
    inside, beyond = (parts(**shared, tp=n)["tensor parallel"] for n in ("8", "16"))
    assert beyond > inside
    wide = parts(**shared, tp="16", gpus_per_node="16")["tensor parallel"]
    small = parts(**shared, tp="16", gpus_per_node="2")["tensor parallel"]
    assert wide < beyond < small / 3
    full = parts(**shared, tp="8", activation_checkpointing="full")["tensor parallel"]
    assert full == pytest.approx(1.5 * inside, rel=0.01)  # forward runs twice


def test_sequence_parallelism_shares_the_element_wise_work() -> None:
    without, with_it = parts(tp="8"), parts(tp="8", sp="sp")
    assert with_it["element-wise"] < 0.5 * without["element-wise"]
    assert with_it["tensor parallel"] == without["tensor parallel"]


def test_context_parallel_gpus_read_all_keys_and_share_the_queries() -> None:
    one, ring = parts(seq="32768"), parts(seq="32768", cp="4")
    assert ring["attention"] == pytest.approx(one["attention"] / 4)
    assert ring["context parallel"] > 0


def test_experts_exchange_tokens_over_the_network_where_a_server_is_too_small() -> None:
    moe = {"model": "mixtral-8x7b", "seq": "4096", "pad_vocab": "64", "software": "pytorch-2024"}
    near, far = (parts(**moe, dp="8", ep="8", gpus_per_node=n)["expert parallel"] for n in ("8", "2"))
    assert 0 < near < far / 3
    fewer = parts(**moe, dp="8", ep="8")["launch overhead"]
    assert fewer < parts(**moe, dp="8")["launch overhead"]  # fewer experts are called


@pytest.mark.parametrize(
    "more", [{"zero": "1"}, {"zero": "2"}, {"zero": "3"}, {"fsdp": "fsdp"}, {"fsdp": "fsdp", "hsdp": "8"}]
)
def test_every_way_of_sharing_sends_something(more: dict[str, str]) -> None:
    found = parts(dp="64", accumulation="1", seq="1024", **more)
    assert found["all-reduce"] + found["sharding"] > 0
    assert planned(**LLAMA | {"dp": "64"} | more).throughput.step_seconds.value


def test_groups_gather_inside_a_server() -> None:
    flat, groups = (parts(dp="64", fsdp="fsdp", seq="1024", **m) for m in ({"gpus_per_node": "2"}, {"hsdp": "8"}))
    assert groups["sharding"] < flat["sharding"]


def test_more_stages_or_ways_never_make_one_gpu_do_more() -> None:
    base = parts()
    for more in ({"tp": "2"}, {"pp": "2"}, {"cp": "2"}, {"tp": "4", "pp": "4"}):
        assert parts(**more)["matrix products"] < 0.65 * base["matrix products"]


def test_a_card_without_links_has_no_speed_in_a_layout() -> None:
    plan = planned(**LLAMA | {"gpu": "t4", "recipe": "mixed-fp16"}, tp="2")
    assert plan.throughput.basis == "unknown" or plan.throughput.step_seconds.value


def test_a_ring_passes_keys_and_values_to_all_other_gpus() -> None:
    assert key_ring_seconds(4e9, 4, 2e9, 0.5) == 3 * (2.0 + 0.5)
    assert key_ring_seconds(4e9, 1, 2e9, 0.5) == 0
    # each chunk's input one way and its gradient the other, of which a quarter is waited for
    assert transfers_seconds(4e9, 3, 2e9, 0.5, 0.25) == 2 * 3 * (2.0 + 0.5) * 0.25
