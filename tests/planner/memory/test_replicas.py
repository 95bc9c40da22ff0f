"""What data-parallel replicas add to one device: DDP's buckets and NCCL's buffers; what FSDP2 takes away."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from planner import presets
from planner.analysis.changes import flags_with
from planner.analysis.findings import findings
from planner.analysis.fitting import what_fits, with_remedies
from planner.config.run import RunConfig
from planner.counts.run import resolve
from planner.counts.shards import local_count, local_tensor, sharded_groups
from planner.counts.tensors import named_tensors, parameter_tensors
from planner.errors import InputError
from planner.inputs.draft import draft
from planner.inputs.flags import Flags
from planner.memory.breakdown import memory_breakdown
from planner.memory.device import device_memory
from planner.memory.phases import simulate_run
from planner.memory.replicas import BUCKET, FIRST_BUCKET, ddp_bucket_bytes, filled, nccl_bytes
from planner.plan import estimate

TINY = {
    **{"family": "llama", "layers": "6", "hidden": "64", "heads": "4", "vocab": "320", "seq": "32"},
    **{"micro_batch": "2", "accumulation": "1", "steps": "10", "gpu": "a100-80gb"},
}


def drafted(**texts: str) -> RunConfig:
    return draft(Flags(**TINY | texts), as_of="2026-11-27", version="test")


def peaks(**texts: str) -> dict[str, int]:
    return {peak.phase: peak.peak_bytes for peak in simulate_run(resolve(drafted(**texts))).phases}


def test_replicas_hold_the_gradients_once_more_unless_they_lie_in_the_buckets() -> None:
    one, two, view = (resolve(drafted(**t)) for t in ({}, {"gpus": "2"}, {"gpus": "2", "ddp_bucket_view": "yes"}))
    gradients = 4 * one.parameters.total
    assert sum(ddp_bucket_bytes(two)) == gradients and ddp_bucket_bytes(one) == ddp_bucket_bytes(view) == ()
    alone, replica = simulate_run(one), simulate_run(two)
    assert replica.max_by_component["communication"] == gradients
    assert [p.peak_bytes - q.peak_bytes for p, q in zip(replica.phases, alone.phases, strict=True)] == [gradients] * 10
    # in the buckets they are alive in every phase from the first micro-batch on: with their update there is no more
    stayed = [p.peak_bytes - q.peak_bytes for p, q in zip(simulate_run(view).phases, alone.phases, strict=True)]
    phases = [p.phase for p in alone.phases]
    more = dict(zip(phases, stayed, strict=True))
    assert {more[phase] for phase in ("init", "forward_end", "backward_start", "evaluation", "save")} == {gradients}
    assert more["optimizer_step"] == more["first_optimizer_step"] == 0
    # several micro-batches add up in tensors of their own, so that there are two copies
    added = [resolve(drafted(gpus="2", accumulation="2", ddp_bucket_view=view)) for view in ("yes", "no")]
    assert simulate_run(added[0]) == simulate_run(added[1]) and ddp_bucket_bytes(added[0]) == ddp_bucket_bytes(two)


def test_narrow_weights_have_narrow_buckets_and_megatron_has_none() -> None:
    bf16 = resolve(drafted(gpus="2", recipe="master-bf16"))
    assert sum(ddp_bucket_bytes(bf16)) == 2 * bf16.parameters.total
    fused = bf16.config.training.model_copy(update={"runtime": "fused"})
    assert ddp_bucket_bytes(replace(bf16, config=bf16.config.model_copy(update={"training": fused}))) == ()


@given(st.lists(st.integers(1, 3 * BUCKET), max_size=50))
def test_every_tensor_is_in_one_bucket_and_all_but_the_last_are_full(sizes: list[int]) -> None:
    buckets = filled(sizes)
    assert sum(buckets) == sum(sizes)
    assert all(size >= FIRST_BUCKET for size in buckets[:1] if len(buckets) > 1)
    assert all(size >= BUCKET for size in buckets[1:-1])


def test_nccl_takes_nothing_from_one_gpu_and_an_interval_from_several() -> None:
    assert nccl_bytes(resolve(drafted())).high == 0
    one, many = (estimate(drafted(gpus=n), replay=True).memory for n in ("1", "8"))
    assert many.nccl_bytes.low and many.nccl_bytes.value and many.nccl_bytes.high
    assert one.device_used_bytes is not None and many.device_used_bytes is not None
    assert many.device_used_bytes > one.device_used_bytes + many.nccl_bytes.low


def test_a_plan_that_nccl_alone_decides_is_unknown() -> None:
    run = resolve(drafted(gpus="8"))
    gpu = presets.gpu("a100-80gb")
    assert gpu.usable_bytes is not None
    found = []
    for held in range(0, gpu.usable_bytes, 2**28):
        device = device_memory(run, gpu, 0, replay=False, buffers=(held,))
        found.append(device.fits)
        assert device.fits is not None or (device.fits_unknown and device.fits_unknown.code == "nccl_buffers")
    assert found == sorted(found, key=[True, None, False].index), "more bytes never fit better"
    assert set(found) == {True, None, False}


# --- FSDP2 ---------------------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 70), st.sampled_from(["llama", "gpt2"]), st.integers(1, 40), st.integers(200, 400))
def test_shards_of_all_ranks_are_the_whole_and_its_padding(gpus: int, family: str, heads: int, vocab: int) -> None:
    texts = {"family": family, "vocab": str(vocab), "hidden": str(8 * heads), "heads": str(heads), "layers": "2"}
    run = resolve(drafted(**texts))
    tensors = parameter_tensors(run.config.model)
    whole, held = local_count(tensors, 1), gpus * local_count(tensors, gpus)
    padding = sum(t.times * (gpus * local_tensor(t, gpus).count - t.count) for t in tensors)
    assert whole == run.parameters.total and held == whole + padding
    assert all(0 <= gpus * local_tensor(t, gpus).shape[0] - t.shape[0] < gpus for t in tensors)


def test_groups_hold_every_tensor_once() -> None:
    run = resolve(drafted(gpus="4", fsdp="fsdp"))
    root, blocks = sharded_groups(run)
    assert root.whole + sum(b.whole for b in blocks) == sum(4 * local_tensor(t, 4).count for t in _each(run.config))
    assert len(blocks) == 6 and root.local * 4 == root.whole


def _each(config: RunConfig) -> list[Any]:
    return [replace(t, times=1) for t in named_tensors(config.model)]


@pytest.mark.parametrize("reshard", ["yes", "no"])
@pytest.mark.parametrize("mode", ["none", "full"])
def test_more_shards_never_need_more(reshard: str, mode: str) -> None:
    texts = {"fsdp": "fsdp", "reshard": reshard, "activation_checkpointing": mode}
    found = [peaks(gpus=str(n), **texts) for n in (2, 4, 8, 16, 32, 64)]
    for fewer, more in pairwise(found):
        assert all(more[phase] <= fewer[phase] for phase in fewer)


def test_weights_that_stay_gathered_need_more() -> None:
    kept, freed = peaks(gpus="8", fsdp="fsdp", reshard="no"), peaks(gpus="8", fsdp="fsdp")
    assert kept["forward_end"] > freed["forward_end"] and kept["optimizer_step"] == freed["optimizer_step"]


MANY_BLOCKS: dict[str, dict[str, str]] = {
    "plain": {},
    "kept": {"reshard": "no"},
    "gpt2": {"family": "gpt2"},
    "recomputed": {"activation_checkpointing": "full"},
    "every second": {"activation_checkpointing": "full", "activation_checkpointing_every": "2"},
    "odd": {"layers": "13"},
    "few": {"layers": "5"},
    "accumulated": {"accumulation": "4"},
    "experts": {"experts": "4", "top_k": "2"},
    "fp32": {"recipe": "fp32"},
    "accumulated in groups": {"hsdp": "2", "accumulation": "4"},
}


@pytest.mark.parametrize("texts", MANY_BLOCKS.values(), ids=MANY_BLOCKS.keys())
def test_blocks_added_at_once_are_those_simulated_one_by_one(texts: dict[str, str]) -> None:
    run = resolve(drafted(**{"gpus": "4", "fsdp": "fsdp", "layers": "12"} | texts))
    quick, slow = simulate_run(run), simulate_run(run, events=[])
    assert {p.phase: p.peak_bytes for p in quick.phases} == {p.phase: p.peak_bytes for p in slow.phases}
    assert quick.saved_by_operator == slow.saved_by_operator
    assert quick.max_by_component == slow.max_by_component


REFUSED = {
    "on 1 GPU": {"fsdp": "fsdp"},
    "whole matrices": {"fsdp": "fsdp", "gpus": "8", "optimizer": "muon"},
    "has no buckets": {"fsdp": "fsdp", "gpus": "8", "ddp_bucket_view": "yes"},
    "without fsdp": {"gpus": "8", "reshard": "no"},
}


@pytest.mark.parametrize("words", REFUSED)
def test_a_layout_that_cannot_be_is_refused_by_name(words: str) -> None:
    with pytest.raises(InputError, match=words):
        drafted(**REFUSED[words])


@pytest.mark.parametrize("recipe", ["master-bf16", "fp8-te"])
def test_what_fsdp2_does_not_have_is_bounded_and_named(recipe: str) -> None:
    memory = memory_breakdown(resolve(drafted(gpus="8", fsdp="fsdp", recipe=recipe)))
    allocated = memory.peak_allocated_bytes
    assert allocated.low is not None and allocated.value is not None and allocated.high is not None
    assert allocated.low < allocated.value < allocated.high


LLAMA = {"model": "llama-3-8b", "tokens": "1T", "gpu": "h100-80gb", "gpus": "8", "seq": "4096"}


def test_sharding_is_the_remedy_before_a_larger_gpu() -> None:
    flags = Flags(**LLAMA)
    config = draft(flags, as_of="2026-11-27", version="test")
    plan = estimate(config, replay=True)
    assert plan.memory.fits is False
    change = what_fits(plan.run)
    assert change is not None and "--fsdp" in change.flags
    (finding,) = [f for f in with_remedies(plan, findings(plan)) if f.code == "does_not_fit"]
    assert "--fsdp" in finding.remedy
    again = draft(flags_with(flags, change), as_of="2026-11-27", version="test")
    assert again.parallel.fsdp and estimate(again, replay=True).memory.fits
