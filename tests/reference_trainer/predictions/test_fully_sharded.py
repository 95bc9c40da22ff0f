"""Predicted bytes of one rank under FSDP2 and DDP, against PyTorch's: exact, phase by phase, bucket by bucket."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from planner.config.run import RunConfig
from planner.counts.run import resolve
from planner.inputs.draft import draft
from planner.inputs.flags import Flags
from planner.memory.phases import simulate_run
from planner.memory.replicas import ddp_bucket_bytes
from reference_trainer.measure.measure import build_model
from reference_trainer.measure.replay import zero_inputs
from tests.reference_trainer.predictions.sharded import group_of, peaks_of_one_rank

TINY = {
    **{"family": "llama", "layers": "4", "hidden": "64", "heads": "4", "vocab": "320", "seq": "32"},
    **{"micro_batch": "2", "accumulation": "1", "steps": "10", "gpu": "a100-80gb", "gpus": "4", "fsdp": "fsdp"},
}
PHASES = ("forward_end", "backward_start", "backward_block", "backward_end", "evaluation")

CASES: dict[str, dict[str, str]] = {
    "plain": {},
    "2 ranks": {"gpus": "2"},
    "7 ranks, padded": {"gpus": "7"},
    "64 ranks": {"gpus": "64"},
    "groups of 4 in 8 ranks": {"gpus": "8", "hsdp": "4"},
    "groups of 2, accumulated, fp32": {"hsdp": "2", "accumulation": "2", "recipe": "fp32"},
    "kept gathered": {"reshard": "no"},
    "gpt2": {"family": "gpt2"},
    "gpt2, 3 ranks, kept": {"family": "gpt2", "gpus": "3", "reshard": "no"},
    "fp32": {"recipe": "fp32"},
    "fp32 gpt2, padded": {"recipe": "fp32", "family": "gpt2", "gpus": "5"},
    "accumulated": {"accumulation": "3"},
    "blocks recomputed": {"activation_checkpointing": "full"},
    "every second block recomputed, kept": {
        "activation_checkpointing": "full",
        "activation_checkpointing_every": "2",
        "reshard": "no",
    },
    "cores recomputed": {"activation_checkpointing": "selective"},
    "loss in chunks": {"loss_kind": "chunked"},
    "fused loss": {"loss_kind": "fused"},
    "attention written out": {"attention": "math"},
    "one block": {"layers": "1"},
    "norms of queries and keys, biases": {"qk_norm": "head", "biases": "all"},
    "norms after": {"norm_placement": "both"},
    "dropout": {"dropout": "0.1"},
    "experts": {"experts": "4", "top_k": "2"},
    "tied": {"tied": "tied"},
    "odd widths": {"gpus": "5", "hidden": "72", "heads": "6", "vocab": "333", "ffn": "100"},
}


def drafted(**texts: str) -> RunConfig:
    return draft(Flags(**TINY | texts), as_of="2026-11-27", version="test")


@pytest.mark.parametrize("texts", CASES.values(), ids=CASES.keys())
def test_peaks_of_a_rank_are_exact(texts: dict[str, str]) -> None:
    config = drafted(**texts)
    predicted = {peak.phase: peak for peak in simulate_run(resolve(config)).phases}
    state = predicted["evaluation"].at_peak["optimizer"]  # no optimizer is made here
    measured = peaks_of_one_rank(config)
    assert {phase: predicted[phase].peak_bytes - state for phase in PHASES} == {p: measured[p] for p in PHASES}


@pytest.mark.parametrize("view", [False, True])
@pytest.mark.parametrize("texts", [{"hidden": "256", "vocab": "16384"}, {"recipe": "pure-bf16", "tied": "tied"}])
def test_buckets_are_those_of_ddp(view: bool, texts: dict[str, str], tmp_path: Path) -> None:
    config = drafted(**{"fsdp": "no_fsdp", "ddp_bucket_view": "yes" if view else "no"} | texts)
    model = build_model(config)
    model.make_tables(config.training.seq, torch.device("cpu"))
    inputs = zero_inputs(config, (1, config.training.seq))
    seen: list[int] = []

    def reduce(_: object, bucket: dist.GradBucket) -> torch.futures.Future[torch.Tensor]:
        seen.append(bucket.buffer().nbytes)
        done: torch.futures.Future[torch.Tensor] = torch.futures.Future()
        done.set_result(bucket.buffer())
        return done

    with group_of(1, "gloo", tmp_path):
        replica = DistributedDataParallel(model, gradient_as_bucket_view=view)
        # a lambda: PyTorch compares the annotations of a function with its types, and here they are texts
        replica.register_comm_hook(None, lambda state, bucket: reduce(state, bucket))
        for _ in range(2):  # after the first backward pass the buckets follow the order of the gradients
            seen.clear()
            replica(*inputs).backward()
        del replica
    config = config.model_copy(update={"parallel": config.parallel.model_copy(update={"ddp_bucket_view": False})})
    assert list(ddp_bucket_bytes(resolve(config))) == seen
