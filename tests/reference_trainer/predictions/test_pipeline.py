"""Predicted bytes of each stage of a pipeline, against PyTorch's schedules: exact, forward and backward."""

from __future__ import annotations

import pytest

from planner import presets
from planner.config.run import RunConfig
from planner.counts.ranks import ranks_of, run_of_rank
from planner.counts.run import resolve
from planner.inputs.draft import draft
from planner.inputs.flags import Flags
from planner.memory.breakdown import memory_breakdown
from planner.memory.coverage import has_exact_passes, not_checked
from planner.memory.device import workspaces_bytes
from planner.memory.optimizer_state import optimizer_memory
from planner.memory.phases import simulate_run
from planner.memory.pipeline_passes import peak_of_passes
from tests.reference_trainer.predictions.pipeline import pipeline_peaks
from tests.soak import some

TINY = {
    **{"family": "llama", "layers": "6", "hidden": "64", "heads": "4", "vocab": "320", "seq": "32"},
    **{"micro_batch": "2", "accumulation": "6", "steps": "10", "gpu": "a100-80gb", "gpus": "3", "pp": "3"},
}
TWO, FULL, AUTOCAST = {"pp": "2", "gpus": "2"}, {"activation_checkpointing": "full"}, {"runtime": "autocast"}
TURNS = TWO | {"interleave": "2", "pp_schedule": "interleaved"}
BACKWARD = ("backward_start", "backward_block", "backward_end")

BESIDE = {"tp": "2", "gpus": "6"}  # tensor parallelism

STAGES = {"first": 0, "middle": 1, "last": -1}

CASES: dict[str, tuple[dict[str, str], bool]] = {
    "1f1b": ({}, False),
    "gpt2, uneven": ({"family": "gpt2", "layers": "7", "recipe": "pure-bf16"}, True),
    "autocast": (AUTOCAST, False),
    "tied, fp32": ({"recipe": "fp32", "tied": "tied"} | TWO, True),
    "blocks recomputed, autocast": (FULL | AUTOCAST, True),
    "cores recomputed, fused loss": ({"activation_checkpointing": "selective", "loss_kind": "fused"}, False),
    "dropout, attention written out": ({"dropout": "0.1", "attention": "math"} | TWO, False),
    "biases, norms of queries": ({"biases": "all", "qk_norm": "head"}, False),
    "tensors cut": (BESIDE, False),
    "tensors cut, autocast": (BESIDE | AUTOCAST, False),
    "tensors and sequence cut, blocks recomputed": (BESIDE | FULL | {"sp": "sp"}, True),
    "tensors cut, tied, fp32": (BESIDE | TWO | {"recipe": "fp32", "tied": "tied", "gpus": "4"}, False),
    "tensors and sequence cut, gpt2": (BESIDE | {"sp": "sp", "family": "gpt2", "recipe": "pure-bf16"}, False),
}


def drafted(texts: dict[str, str]) -> RunConfig:
    return draft(Flags(**TINY | texts), as_of="2026-11-27", version="test")


@pytest.mark.parametrize(
    "texts", some([case[0] for case in CASES.values()], lambda texts: (texts, True) in CASES.values())
)
def test_peaks_of_every_stage_are_exact(texts: dict[str, str]) -> None:
    config = drafted(texts)
    run = resolve(config)
    assert not_checked(run) is None
    for rank in ranks_of(config):
        predicted = {peak.phase: peak for peak in simulate_run(run_of_rank(run, rank)).phases}
        state = predicted["evaluation"].at_peak["optimizer"]
        forward = predicted["forward_end"].peak_bytes - state
        backward = max(predicted[phase].peak_bytes for phase in BACKWARD if phase in predicted) - state
        measured = pipeline_peaks(config, STAGES[rank.name.split()[0]] % config.parallel.pp)
        assert (forward, backward) == (measured["forward"], measured["backward"]), rank.name
        assert predicted["optimizer_step"].at_peak["weights"] == measured["weights"]
        assert predicted["optimizer_step"].at_peak["gradients"] == measured["gradients"]


# what the rule of a plan has not to the byte, and the passes of the schedule have
PASSES: dict[str, tuple[dict[str, str], bool]] = {
    "as many micro-batches as stages": ({"accumulation": "3"} | FULL | AUTOCAST, False),
    "two, two": (TWO | {"accumulation": "2", "loss_kind": "chunked"}, True),
    "two chunks in turn": (TURNS, False),
    "in turn, uneven": (TURNS | {"layers": "7", "accumulation": "4"} | FULL, False),
    "in turn, on three": (TURNS | {"pp": "3", "gpus": "3"} | AUTOCAST, False),
    "in turn, few micro-batches": (TURNS | {"accumulation": "2", "tied": "tied"}, True),
    "three chunks in turn, fp32": (TURNS | {"interleave": "3", "recipe": "fp32"}, False),
    "embedding and head alone": (TURNS | {"interleave": "4", "family": "gpt2", "dropout": "0.1"}, False),
    "in turn, tensors and sequence cut": (TURNS | BESIDE | {"sp": "sp", "gpus": "4"}, False),
}


@pytest.mark.parametrize(
    "texts", some([case[0] for case in PASSES.values()], lambda texts: (texts, True) in PASSES.values())
)
def test_passes_of_a_schedule_are_exact_and_bound_the_plan(texts: dict[str, str]) -> None:
    config = drafted(texts)
    run = resolve(config)
    assert has_exact_passes(run)
    highest = 0
    for rank in ranks_of(config):
        local = run_of_rank(run, rank)
        state = optimizer_memory(local).state_bytes
        measured = pipeline_peaks(config, STAGES[rank.name.split()[0]] % config.parallel.pp)
        most = max(measured["forward"], measured["backward"]) + state
        assert most <= peak_of_passes(local, run, on_gpu=False) <= most + 8, rank.name  # 8: losses, 4 bytes each
        highest = max(highest, peak_of_passes(local, run, on_gpu=True))
    allocated = memory_breakdown(run, replay=False).peak_allocated_bytes
    workspace = workspaces_bytes(presets.gpu(config.hardware.gpu))
    assert allocated.low is not None and allocated.high is not None
    assert allocated.low <= highest + workspace <= allocated.high <= 1.35 * allocated.low


@pytest.mark.parametrize(
    ("texts", "part"),
    [
        ({"pp_schedule": "zero-bubble"}, "zero-bubble"),
        (TURNS | {"runtime": "fused", "recipe": "master-bf16"}, "fused kernels"),
        ({"accumulation": "2"}, "micro-batches"),
        ({"fsdp": "fsdp", "gpus": "6"}, "FSDP2"),
        (FULL | {"activation_checkpointing_every": "2"}, "alternate"),
    ],
)
def test_what_no_stage_was_compared_with_is_named(texts: dict[str, str], part: str) -> None:
    run = resolve(drafted(texts))
    named = not_checked(run)
    assert not has_exact_passes(run)
    assert named is not None and "a pipeline" in named and part in named
