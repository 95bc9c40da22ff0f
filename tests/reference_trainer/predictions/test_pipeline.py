"""Predicted bytes of each stage of a pipeline, against PyTorch's schedules: exact, forward and backward."""

from __future__ import annotations

import pytest

from planner.config.run import RunConfig
from planner.counts.ranks import ranks_of, run_of_rank
from planner.counts.run import resolve
from planner.inputs.draft import draft
from planner.inputs.flags import Flags
from planner.memory.coverage import not_checked
from planner.memory.phases import simulate_run
from tests.reference_trainer.predictions.pipeline import pipeline_peaks
from tests.soak import some

TINY = {
    **{"family": "llama", "layers": "6", "hidden": "64", "heads": "4", "vocab": "320", "seq": "32"},
    **{"micro_batch": "2", "accumulation": "6", "steps": "10", "gpu": "a100-80gb", "gpus": "3", "pp": "3"},
}
TWO, FULL, AUTOCAST = {"pp": "2", "gpus": "2"}, {"activation_checkpointing": "full"}, {"runtime": "autocast"}
TURNS = TWO | {"interleave": "2", "pp_schedule": "interleaved"}
BACKWARD = ("backward_start", "backward_block", "backward_end")
NEAR = 0.02  # interleaved: a waiting chunk is counted as one without the embedding

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


@pytest.mark.soak
@pytest.mark.parametrize("texts", [{"layers": "8"}, {"interleave": "3", "recipe": "fp32"}], ids=str)
def test_chunks_in_turn_are_near(texts: dict[str, str]) -> None:
    config = drafted(TURNS | texts)
    run = resolve(config)
    for rank in ranks_of(config):
        phases = simulate_run(run_of_rank(run, rank)).phases
        state = next(peak for peak in phases if peak.phase == "evaluation").at_peak["optimizer"]
        measured = pipeline_peaks(config, STAGES[rank.name.split()[0]] % config.parallel.pp)
        most = max(peak.peak_bytes for peak in phases if peak.phase in ("forward_end", *BACKWARD)) - state
        assert most == pytest.approx(max(measured["forward"], measured["backward"]), rel=NEAR)


@pytest.mark.parametrize(
    ("texts", "part"),
    [
        ({"pp_schedule": "zero-bubble"}, "zero-bubble"),
        (TURNS, "interleaved"),
        ({"accumulation": "3"}, "micro-batches"),
        ({"fsdp": "fsdp", "gpus": "6"}, "FSDP2"),
        (FULL | {"activation_checkpointing_every": "2"}, "alternate"),
    ],
)
def test_what_no_stage_was_compared_with_is_named(texts: dict[str, str], part: str) -> None:
    named = not_checked(resolve(drafted(texts)))
    assert named is not None and "a pipeline" in named and part in named
