"""What holds of random models under random layouts: parts add up, more GPUs never need more, more tokens do."""

from __future__ import annotations

from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from planner.counts.ranks import Rank, held_tensors, ranks_of, run_of_rank
from planner.counts.run import Resolved, resolve
from planner.counts.shards import gradients_cut, optimizer_cut, weights_cut
from planner.inputs.draft import draft
from planner.inputs.flags import Flags
from planner.memory.phases import simulate_run
from tests.examples import TIMES

FEW = settings(max_examples=25 * TIMES, deadline=None, suppress_health_check=list(HealthCheck))
GPUS = 8  # every layout is one of so many, or twice as many
MODELS = st.fixed_dictionaries(
    {
        "family": st.sampled_from(["llama", "gpt2"]),
        "layers": st.sampled_from(["4", "5", "9"]),
        "hidden": st.sampled_from(["64", "128"]),
        "heads": st.sampled_from(["8", "16"]),
        "vocab": st.sampled_from(["256", "1536"]),
        "seq": st.sampled_from(["16", "64"]),
        "tied": st.sampled_from(["tied", "untied"]),
        "recipe": st.sampled_from(["fp32", "mixed-bf16", "pure-bf16"]),
        "activation_checkpointing": st.sampled_from(["none", "full", "selective"]),
    }
)
LAYOUTS = st.sampled_from(
    [
        {"tp": "2"},
        {"tp": "4", "sp": "sp"},
        {"pp": "2"},
        {"pp": "4", "tp": "2"},
        {"pp": "2", "interleave": "2", "pp_schedule": "interleaved"},
        {"zero": "1"},
        {"zero": "2"},
        {"zero": "3"},
        {"fsdp": "fsdp"},
        {"fsdp": "fsdp", "hsdp": "4"},
        {"tp": "2", "zero": "1"},
    ]
)


def resolved(texts: dict[str, str], **more: str) -> Resolved:
    usual = {
        "micro_batch": "2",
        "accumulation": "8",
        "steps": "10",
        "gpu": "h100-80gb",
        "gpus": str(GPUS),
        "ffn": "256",
    }
    return resolve(draft(Flags(**usual | texts | more), as_of="2026-11-27", version="test"))


def parts(run: Resolved) -> list[tuple[Rank, int]]:
    """The kinds of GPUs, and how many stages each is; all stages between the ends are of one kind here."""
    kinds = ranks_of(run.config)
    others = run.config.parallel.pp - len(kinds)
    return [(rank, 1 + (others if rank.name.startswith("middle") else 0)) for rank in kinds]


def peak(run: Resolved) -> int:
    """The most that any GPU requests."""
    kinds = [run_of_rank(run, rank) for rank in ranks_of(run.config)]
    return max(phase.peak_bytes for kind in kinds for phase in simulate_run(kind, on_gpu=True).phases)


@FEW
@given(MODELS, LAYOUTS)
def test_what_all_gpus_store_is_the_model_and_its_copies(model: dict[str, str], layout: dict[str, str]) -> None:
    run = resolved({**model, "layers": "8"} | layout)
    p, whole = run.config.parallel, run.parameters.total
    for cut_of in (weights_cut, gradients_cut, optimizer_cut):
        stored = padding = copied = 0
        for rank, stages in parts(run):
            local = run_of_rank(run, rank)
            cut = cut_of(local)
            for tensor in held_tensors(local):
                shards, kept = cut.shards_of(tensor), stages * tensor.times * p.tp
                more = cut.part(tensor).count * shards - tensor.count
                assert 0 <= more < shards * (tensor.count // tensor.shape[0] if cut.by_rows else 1)
                stored += kept * cut.part(tensor).count * shards
                padding += kept * more
                copied += kept * tensor.count * (p.tp - 1) // p.tp if _is_whole(tensor.name) else 0
        table = run.config.model.vocab * run.config.model.hidden
        copied += table if run.config.model.tied_embeddings and p.pp > 1 else 0
        assert stored == whole + padding + copied


def _is_whole(name: str) -> bool:
    """Whether every tensor-parallel GPU has all of it."""
    return any(part in name for part in ("norm", "position", "attention.proj.bias", "mlp.down.bias"))


@FEW
@given(MODELS, st.sampled_from([{"zero": "1"}, {"zero": "2"}, {"fsdp": "fsdp"}, {"tp": "2"}, {"tp": "2", "sp": "sp"}]))
def test_more_gpus_that_share_never_need_more(model: dict[str, str], layout: dict[str, str]) -> None:
    """Every side is a multiple of the GPUs, so that nothing is padded."""
    more: dict[str, Any] = {"tp": "4"} if "tp" in layout else {"gpus": str(2 * GPUS)}
    assert peak(resolved(model | layout, **more)) <= peak(resolved(model | layout))


@FEW
@given(MODELS, LAYOUTS)
def test_a_larger_micro_batch_needs_more(model: dict[str, str], layout: dict[str, str]) -> None:
    assert peak(resolved(model | layout, micro_batch="3")) > peak(resolved(model | layout))
