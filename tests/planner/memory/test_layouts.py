"""Memory of layouts: published formulas and tables, and what must hold whichever way a model is cut."""

from __future__ import annotations

from itertools import pairwise

import pytest

from planner.config.run import RunConfig
from planner.counts.ranks import chunks_of_layers, held_tensors, in_flight, ranks_of, run_of_rank
from planner.counts.run import Resolved, resolve
from planner.counts.shards import optimizer_cut, weights_cut
from planner.inputs.draft import draft
from planner.inputs.flags import Flags
from planner.memory.breakdown import Memory, memory_breakdown
from planner.memory.eager.context import simulation_context
from planner.memory.megatron import fused_program
from planner.memory.phases import simulate_run

TINY = {
    **{"family": "llama", "layers": "8", "hidden": "64", "heads": "8", "kv_heads": "4", "vocab": "320", "seq": "64"},
    **{"ffn": "256", "micro_batch": "2", "accumulation": "8", "steps": "10", "gpu": "h100-80gb", "runtime": "eager"},
}


def drafted(**texts: str) -> RunConfig:
    return draft(Flags(**TINY | texts), as_of="2026-11-27", version="test")


def memory(**texts: str) -> Memory:
    return memory_breakdown(resolve(drafted(**texts)), replay=False)


def only_rank(run: Resolved) -> Resolved:
    (rank,) = ranks_of(run.config)
    return run_of_rank(run, rank)


# --- published -----------------------------------------------------------------------------------------------

# Korthikanti et al. 2022 (arXiv 2205.05198), table 2: bytes of activations per layer, with dropout and stored scores,
# as (of s b h, of s b h / t, of a s / h, of a s / (h t))
KORTHIKANTI = {
    "no": ({}, lambda t, r: 34 + 5 * r),
    "tensor": ({"tp": "4"}, lambda t, r: 10 + 24 / t + 5 * r / t),
    "tensor and sequence": ({"tp": "4", "sp": "sp"}, lambda t, r: (34 + 5 * r) / t),
    "tensor, selective": ({"tp": "4", "activation_checkpointing": "selective"}, lambda t, r: 10 + 24 / t),
    "both, selective": ({"tp": "4", "sp": "sp", "activation_checkpointing": "selective"}, lambda t, r: 34 / t),
}


@pytest.mark.parametrize(("texts", "formula"), KORTHIKANTI.values(), ids=KORTHIKANTI.keys())
def test_activations_of_a_megatron_block_are_those_of_korthikanti(texts, formula) -> None:  # type: ignore[no-untyped-def]
    shape = {"family": "gpt2", "kv_heads": "8", "attention": "math", "dropout": "0.1", "ffn": "256"}
    run = resolve(drafted(**shape, recipe="master-bf16", runtime="fused", **texts))
    if run.config.parallel.tp > 1:
        run = only_rank(run)
    block = fused_program(simulation_context(run, cuda=True)).blocks[0]
    s, b, h, a = 64, 2, 64, 8
    assert sum(stage.saved_bytes for stage in block) == s * b * h * formula(4, a * s / h)


@pytest.mark.parametrize(("zero", "gigabytes"), [("0", 120.0), ("1", 31.4), ("2", 16.6), ("3", 1.9)])
def test_state_is_that_of_zero_s_table(zero: str, gigabytes: float) -> None:
    # Rajbhandari et al. 2020 (arXiv 1910.02054), figure 1: 7.5B parameters on 64 GPUs, 2 + 2 + 12 bytes each
    m = memory(model="llama-2-7b", dp="64", zero=zero, recipe="master-bf16-grad16", seq="128", **BARE)
    counts = m.weights_bytes + m.gradients_bytes + m.master_weights_bytes + m.optimizer_bytes
    assert counts / 6_738_415_616 * 7.5 == pytest.approx(gigabytes, abs=0.06)


BARE = dict.fromkeys(("layers", "hidden", "heads", "kv_heads", "vocab", "ffn", "family"))


def test_llama_3_405b_fits_as_it_was_trained() -> None:
    # Llama 3 (arXiv 2407.21783), table 4: TP 8, PP 16, 128 replicas of 16 sequences on H100 80 GB, no recomputation;
    # 126 layers, so that the first stage has the embedding alone in a chunk and the last one the head
    texts = {
        "model": "llama-3.1-405b",
        "tp": "8",
        "pp": "16",
        "sp": "sp",
        "interleave": "8",
        "dp": "128",
        "seq": "8192",
    }
    options = {"pp_schedule": "interleaved", "zero": "1", "micro_batch": "1", "accumulation": "16"}
    m = memory(**texts, **options, recipe="master-bf16", runtime="fused", **BARE)
    assert m.fits is not False and [rank.layers for rank in m.ranks] == [7, 8, 7]
    assert chunks_of_layers(126, 128) == (0, *[1] * 126, 0)
    low = m.peak_allocated_bytes.low
    assert low is not None and low < 80e9


def test_megatron_s_interleaved_schedule_keeps_what_korthikanti_says() -> None:
    # arXiv 2205.05198, section 4.2.3: layers x (1 + (p - 1) / (p m)) of the first stage; the 175B model, p = 8, m = 3
    chunks = in_flight("interleaved", 8, 0, 3, 64)
    assert chunks * 96 / (8 * 3) == pytest.approx(96 * (1 + 7 / 24) * 1)


def test_zero_widens_the_partition_of_narrow_gradients_at_once() -> None:
    # DeepSpeed's stage_1_and_2.py makes one fp32 buffer of what a GPU updates
    texts = {"recipe": "master-bf16-grad16", "hidden": "512", "ffn": "2048", "vocab": "32000"}
    for zero, gpus in (("0", 1), ("1", 8), ("2", 8)):
        run = only_rank(resolve(drafted(dp="8", zero=zero, optimizer_implementation="fused", **texts)))
        step = next(p for p in simulate_run(run).phases if p.phase == "optimizer_step")
        largest = max(t.count for t in held_tensors(run))
        updated = optimizer_cut(run).count(held_tensors(run))
        assert gpus == 1 or updated == pytest.approx(run.parameters.total / gpus, rel=1e-3)
        assert step.at_peak["temporary"] == 4 * (updated if zero != "0" else largest)


def test_what_the_update_makes_in_one_piece_is_reserved_beside_the_activations() -> None:
    texts = {"model": "llama-2-7b", "tp": "4", "dp": "8", "zero": "1", "runtime": "fused", "seq": "4096", **BARE}
    wide, narrow = (memory(**texts, recipe=recipe) for recipe in ("master-bf16", "master-bf16-grad16"))
    buffer = narrow.master_weights_bytes
    assert narrow.peak_phase != "optimizer_step" and wide.master_weights_bytes == buffer
    for m, apart in ((wide, 0), (narrow, buffer)):
        assert m.peak_reserved_bytes.value == pytest.approx(1.12 * m.peak_allocated_bytes.value + apart, abs=2)  # type: ignore[operator]
        assert m.device_used_bytes == m.peak_reserved_bytes.value + m.outside_bytes  # type: ignore[operator]


# --- conservation ----------------------------------------------------------------------------------------------

LAYOUTS: dict[str, dict[str, str]] = {
    "tensor": {"tp": "4"},
    "more than key-value heads": {"tp": "8"},
    "pipeline": {"pp": "3"},
    "interleaved": {"pp": "2", "interleave": "2", "pp_schedule": "interleaved"},
    "tied pipeline": {"pp": "2", "tied": "tied"},
    "gpt2": {"family": "gpt2", "kv_heads": "8", "tp": "2", "pp": "2"},
    "experts": {"experts": "8", "top_k": "2", "ep": "4", "dp": "4"},
    "experts in tensors": {"experts": "8", "top_k": "2", "ep": "2", "dp": "2", "tp": "2", "shared_ffn": "64"},
}


@pytest.mark.parametrize("texts", LAYOUTS.values(), ids=LAYOUTS.keys())
def test_all_gpus_hold_the_model_and_what_they_repeat(texts: dict[str, str]) -> None:
    run = resolve(drafted(**texts))
    p, model = run.config.parallel, run.config.model
    held = 0
    for rank, times in _stages(run):
        for tensor in held_tensors(run_of_rank(run, rank)):
            cut = p.tp if _is_cut(tensor.name) else 1
            shared = p.ep if "experts" in tensor.name else 1
            held += times * tensor.times * tensor.count * cut * shared
    again = (p.tp // model.kv_heads - 1) * 2 * model.kv_heads * model.head_dim if p.tp > model.kv_heads else 0
    copies = model.vocab * model.hidden if model.tied_embeddings and p.pp > 1 else 0
    assert held == run.parameters.total + model.layers * again * model.hidden + copies


def _stages(run: Resolved):  # type: ignore[no-untyped-def]
    ranks = ranks_of(run.config)
    middle = run.config.parallel.pp - len(ranks)
    return [(rank, 1 + (middle if "middle" in rank.name else 0)) for rank in ranks]


def _is_cut(name: str) -> bool:
    whole = ("norm", "position", "mlp.router", "attention.proj.bias", "mlp.down.bias")
    return not any(part in name for part in whole)


@pytest.mark.parametrize(
    "texts",
    [
        {"tp": "2"},
        {"tp": "2", "sp": "sp"},
        {"pp": "2"},
        {"cp": "2"},
        {"dp": "8", "zero": "1"},
        {"dp": "8", "zero": "2"},
    ],
    ids=str,
)
@pytest.mark.parametrize("mode", ["none", "full"])
def test_a_gpu_of_a_layout_needs_less_than_one_gpu_and_less_the_more_there_are(
    texts: dict[str, str], mode: str
) -> None:
    name = next(iter(texts))
    more = texts | {name: str(2 * int(texts[name]))}
    checkpointed = {"activation_checkpointing": mode, "ddp_bucket_view": "yes" if texts.get("zero") != "2" else "no"}
    # context parallelism halves activations alone, and has the buckets of replicas
    checkpointed |= {"micro_batch": "32"} if "cp" in texts else {}
    one, few, many = (memory(**t | checkpointed).peak_requested_bytes for t in ({}, texts, more))
    assert many < few < one


def test_zero_stages_need_less_each() -> None:
    found = [memory(dp="8", zero=z, hidden="512", ffn="2048").peak_requested_bytes for z in "0123"]
    assert all(after < before for before, after in pairwise(found))


def test_earlier_stages_keep_more_and_the_plan_is_the_one_that_needs_most() -> None:
    m = memory(pp="4", accumulation="8")
    assert [(r.name, r.layers, r.in_flight) for r in m.ranks] == [
        ("first stage", 2, 4),
        ("middle stage", 2, 3),
        ("last stage", 2, 1),
    ]
    assert m.peak_requested_bytes == max(r.peak_requested_bytes for r in m.ranks)
    assert m.saved_by_operator["micro-batches in flight"] > 0
    fewer = memory(pp="4", accumulation="2")
    assert [r.in_flight for r in fewer.ranks] == [2, 2, 1]
    assert fewer.peak_requested_bytes < m.peak_requested_bytes


@pytest.mark.parametrize(
    ("schedule", "interleave", "expected"),
    [
        ("1f1b", 1, [4, 3, 2, 1]),
        ("interleaved", 2, [11, 9, 7, 5]),
        ("zero-bubble", 1, [4] * 4),
        ("dualpipe", 1, [5] * 4),
    ],
)
def test_chunks_in_flight_by_schedule(schedule: str, interleave: int, expected: list[int]) -> None:
    assert [in_flight(schedule, 4, stage, interleave, 16) for stage in range(4)] == expected


@pytest.mark.parametrize("layers", [7, 30, 61, 126])
@pytest.mark.parametrize("chunks", [2, 3, 4, 7])
def test_layers_are_shared_evenly_the_rest_in_the_middle(layers: int, chunks: int) -> None:
    found = chunks_of_layers(layers, chunks)
    assert sum(found) == layers and max(found) - min(found) <= 1
    if chunks > 2 and layers % chunks:
        assert found[0] == min(found)


@pytest.mark.parametrize("texts", [{"layers": "13"}, {"runtime": "autocast"}, {"tied": "tied"}], ids=str)
def test_two_stages_hold_the_weights_of_one_gpu(texts: dict[str, str]) -> None:
    whole, cut = memory(**texts), memory(**texts, pp="2")
    table = 4 * 320 * 64 if "tied" in texts else 0
    assert sum(r.at_peak["weights"] for r in cut.ranks) == whole.weights_bytes + table


def test_shards_of_experts_are_shared_by_fewer_gpus() -> None:
    run = resolve(drafted(experts="8", top_k="2", ep="4", dp="8", zero="1"))
    local = only_rank(run)
    cut = optimizer_cut(local)
    assert (cut.shards, cut.of_experts) == (8, 2) and weights_cut(local).shards == 1
    experts = [t for t in held_tensors(local) if "experts" in t.name]
    assert experts and all(cut.part(t).count == t.count // 2 for t in experts)


def test_a_layout_without_a_reference_is_an_interval_and_may_leave_the_verdict_open() -> None:
    long = {"model": "llama-3-8b", "tp": "4", "cp": "2", "micro_batch": "1", "accumulation": "1", **BARE}
    m = memory(seq="8192", **long)
    allocated = m.peak_allocated_bytes
    assert allocated.low is not None and allocated.value is not None and allocated.high is not None
    assert allocated.low < 0.9 * allocated.value and allocated.high > 1.1 * allocated.value
    assert {memory(seq=str(n), **long).fits for n in (256, 32768, 131072)} == {True, None, False}


def test_tensor_parallelism_is_as_sure_as_one_gpu() -> None:
    m = memory_breakdown(resolve(drafted(tp="2", seq="512")))
    allocated, reserved = m.peak_allocated_bytes, m.peak_reserved_bytes
    assert allocated.high is not None and allocated.value is not None and allocated.high <= 1.006 * allocated.value
    assert reserved.value is not None and m.fits is True and "simulated allocator" in m.fits_by


def test_context_parallelism_keeps_two_blocks_of_keys() -> None:
    run = resolve(drafted(cp="2", head_dim="128"))
    plain = simulate_run(resolve(drafted(seq="32", head_dim="128")))
    ring = simulate_run(only_rank(run))
    saved = {k: v for k, v in ring.saved_by_operator.items() if k != "position"}
    assert saved == plain.saved_by_operator
    assert ring.max_by_component["temporary"] > plain.max_by_component["temporary"]


def test_each_chunk_in_flight_adds_what_it_retains_and_nothing_stays_of_measuring_it() -> None:
    # as many micro-batches as are in flight on the first stage of four; blocks added at once left theirs behind
    steps = [memory(pp="4", layers="16", accumulation=str(n)).ranks[0] for n in (1, 2, 3, 4)]
    assert [rank.in_flight for rank in steps] == [1, 2, 3, 4]
    added = {later.peak_requested_bytes - earlier.peak_requested_bytes for earlier, later in pairwise(steps)}
    assert len(added) == 1 and min(added) > 0


@pytest.mark.parametrize("texts", [{}, {"activation_checkpointing": "full", "activation_checkpointing_every": "2"}])
@pytest.mark.parametrize("loss", ["plain", "chunked"])
def test_gradients_of_experts_are_cut_among_the_gpus_that_hold_the_same_ones(texts: dict[str, str], loss: str) -> None:
    """Under ZeRO-2: with all GPUs' parts of them a plan ended in an assertion, wherever every block was simulated."""
    found = []
    for ep in ("1", "2", "4"):
        layout = {"experts": "8", "top_k": "2", "ep": ep, "dp": "8", "zero": "2", "layers": "3", "runtime": "eager"}
        m = memory(loss_kind=loss, **layout, **texts)
        assert m.peak_requested_bytes > m.gradients_bytes
        found.append(m.gradients_bytes)
    # of a part of the experts fewer GPUs share each: what one holds of their gradients stays the same but for padding
    assert found[0] == pytest.approx(found[1], rel=0.01) == pytest.approx(found[2], rel=0.01)
