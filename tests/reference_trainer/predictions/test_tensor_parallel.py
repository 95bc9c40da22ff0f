"""Predicted bytes of one rank under tensor and sequence parallelism, against PyTorch's: exact, phase by phase."""

from __future__ import annotations

from typing import Any

import pytest

from planner.config.run import RunConfig
from planner.counts.ranks import ranks_of, run_of_rank
from planner.counts.run import resolve
from planner.inputs.draft import draft
from planner.inputs.flags import Flags
from planner.memory.coverage import not_checked, not_covered
from planner.memory.phases import simulate_run
from tests.reference_trainer.predictions.tensor_parallel import peaks_of_one_rank
from tests.soak import some

TINY = {
    **{"family": "llama", "layers": "3", "hidden": "64", "heads": "4", "vocab": "320", "seq": "32"},
    **{"micro_batch": "2", "accumulation": "1", "steps": "10", "gpu": "a100-80gb", "gpus": "2", "tp": "2"},
}
PHASES = ("forward_end", "backward_start", "backward_block", "backward_end", "evaluation")
GPT2, FULL, AUTOCAST = {"family": "gpt2"}, {"activation_checkpointing": "full"}, {"runtime": "autocast"}
SP, FP32, BIASED = {"sp": "sp"}, {"recipe": "fp32"}, {"biases": "all", "qk_norm": "head"}
ODD = {"hidden": "192", "heads": "6", "vocab": "333", "kv_heads": "1", "seq": "33", "ffn": "99", "tp": "3", "gpus": "3"}

# options, changes of the model that no flag makes, whether `make test` runs it
CASES: dict[str, tuple[dict[str, str], dict[str, Any], bool]] = {
    "plain": ({}, {}, False),
    "fp32": (FP32, {}, False),
    "pure bf16, sequence": ({"recipe": "pure-bf16"} | SP, {}, False),
    "sequence": (SP, {}, True),
    "fp32, sequence": (FP32 | SP, {}, False),
    "one sequence, which is gathered without a copy": ({"micro_batch": "1"} | SP, {}, False),
    "gpt2": (GPT2, {}, False),
    "gpt2, sequence": (GPT2 | SP, {}, False),
    "autocast": (AUTOCAST, {}, False),
    "autocast, sequence": (AUTOCAST | SP, {}, False),
    "autocast, blocks recomputed, biases": (AUTOCAST | FULL | BIASED, {}, False),
    "accumulated": ({"accumulation": "3"} | BIASED | SP, {}, False),
    "blocks recomputed": (FULL, {}, False),
    "blocks recomputed, sequence": (FULL | SP, {}, False),
    "blocks recomputed, sequence, autocast": (FULL | AUTOCAST | SP, {}, True),
    "every second block": (FULL | SP | {"activation_checkpointing_every": "2", "layers": "5"}, {}, False),
    "cores recomputed": ({"activation_checkpointing": "selective"} | SP, {}, False),
    "tied": ({"tied": "tied"}, {}, False),
    "tied, one block, sequence": ({"tied": "tied", "layers": "1"} | SP, {}, True),
    "more GPUs than key-value heads": ({"tp": "4", "gpus": "4", "kv_heads": "2"} | SP, {}, True),
    "odd widths on 3 GPUs": (ODD | SP, {}, True),
    "attention written out": ({"attention": "math"} | SP, {}, False),
    "dropout": ({"dropout": "0.1"} | SP, {}, False),
    "loss in chunks": ({"loss_kind": "chunked"}, {}, False),
    "loss in chunks, sequence": ({"loss_kind": "chunked"} | SP, {}, True),
    "ALiBi, documents": ({"position": "alibi", "document_masking": "yes"} | SP, {}, False),
    "window": ({"sliding_window": "8"} | SP, {}, False),
    "GELU written out": ({"mlp": "gelu-written-out"} | AUTOCAST | SP, {}, False),
    "squared ReLU, no positions": ({"mlp": "relu2", "position": "none"} | SP, {}, False),
    "norms after": ({"norm_placement": "both"} | SP, {}, False),
    "parallel residual": (SP, {"residual": "parallel"}, False),
    "parallel residual, one norm": (GPT2 | SP, {"residual": "parallel-one-norm"}, False),
    "norm of the embedding, capped logits": (GPT2 | SP, {"embedding_norm": True, "logit_softcap": 30.0}, True),
    "norms without gains": (SP, {"norm_parameters": "none"}, False),
}


def drafted(texts: dict[str, str], model: dict[str, Any]) -> RunConfig:
    config = draft(Flags(**TINY | texts), as_of="2026-11-27", version="test")
    return config.model_copy(update={"model": config.model.model_copy(update=model)})


@pytest.mark.parametrize(
    ("texts", "model"), some([case[:2] for case in CASES.values()], lambda case: (*case, True) in CASES.values())
)
def test_peaks_of_a_rank_are_exact(texts: dict[str, str], model: dict[str, Any]) -> None:
    config = drafted(texts, model)
    run = resolve(config)
    assert not_checked(run) is None
    (rank,) = ranks_of(config)
    predicted = {peak.phase: peak for peak in simulate_run(run_of_rank(run, rank)).phases}
    state = predicted["evaluation"].at_peak["optimizer"]
    measured = peaks_of_one_rank(config)
    assert {phase: predicted[phase].peak_bytes - state for phase in PHASES} == {p: measured[p] for p in PHASES}
    at_update = predicted["optimizer_step"].at_peak
    for component in ("weights", "gradients", "optimizer"):
        assert at_update[component] == measured[component], component


SHARDED = {"fsdp": "fsdp", "gpus": "8"}
WITH_SHARDS: dict[str, tuple[dict[str, str], bool]] = {
    "mixed": (SHARDED, False),
    "sequence, blocks recomputed": (SHARDED | SP | FULL | {"layers": "6"}, True),
    "fp32": (SHARDED | FP32, False),
    "accumulated": (SHARDED | {"accumulation": "3"}, False),
    "kept gathered": (SHARDED | {"reshard": "no"}, False),
    "gpt2, sequence": (SHARDED | GPT2 | SP, False),
    "two replicas of four": (SHARDED | {"tp": "4"}, False),
}


@pytest.mark.parametrize(
    "texts", some([case[0] for case in WITH_SHARDS.values()], lambda texts: (texts, True) in WITH_SHARDS.values())
)
def test_peaks_of_a_rank_beside_fsdp2_are_exact(texts: dict[str, str]) -> None:
    """Groups of GPUs that share tensors are the replicas among which FSDP2 cuts what each holds."""
    config = drafted(texts, {})
    run = resolve(config)
    assert not_checked(run) is None and not_covered(run) is None
    (rank,) = ranks_of(config)
    predicted = {peak.phase: peak for peak in simulate_run(run_of_rank(run, rank)).phases}
    state = predicted["evaluation"].at_peak["optimizer"]
    measured = peaks_of_one_rank(config)
    assert {phase: predicted[phase].peak_bytes - state for phase in PHASES} == {p: measured[p] for p in PHASES}
    for component in ("weights", "optimizer"):  # a gradient is a view of the buffer that was reduced
        assert predicted["optimizer_step"].at_peak[component] == measured[component], component


@pytest.mark.parametrize(
    ("texts", "part"),
    [
        ({"loss_kind": "fused"}, "fused loss"),
        ({"experts": "4", "top_k": "2"}, "experts"),
        ({"fsdp": "fsdp", "hsdp": "2", "gpus": "8"}, "FSDP2 in groups"),
    ],
)
def test_what_no_rank_was_compared_with_is_named(texts: dict[str, str], part: str) -> None:
    named = not_checked(resolve(drafted({"gpus": "4"} | texts, {})))
    assert named is not None and "tensor parallelism" in named and part in named
