"""The compiled step: its published closed form, options that are not covered, and their bounds."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from planner import presets
from planner.analysis.findings import findings
from planner.config.run import IMPLEMENTATIONS, TrainingConfig
from planner.counts.parameters import parameters_of
from planner.counts.run import resolve
from planner.inputs.draft import draft
from planner.inputs.flags import Flags
from planner.memory.breakdown import memory_breakdown
from planner.memory.coverage import EXCLUSIONS, not_covered
from planner.memory.phases import simulate_run
from planner.plan import estimate
from tests.reference_trainer.conftest import config_of

GPT2: dict[str, Any] = {
    "layers": 12, "hidden": 768, "heads": 12, "kv_heads": 12, "head_dim": 64, "ffn": 3072, "vocab": 50304,
    "context": 1024, "seq": 1024, "recipe": "mixed-bf16", "accumulation": 2,
}  # fmt: skip


@pytest.mark.parametrize("sequences", [8, 16, 32, 64])
def test_gpt2_as_written_out(sequences: int) -> None:
    """Per block and token 20h + 4f + 4a + 8, ends 6h + 12, logits 2V, written over by their gradient.

    Beside it 16 bytes per parameter, 2 per weight of a linear layer or head, and the head's gradient in bf16.
    """
    config = config_of(**GPT2, runtime="compiled", micro_batch=sequences)
    h, f, a, vocab, n = 768, 3072, 12, 50304, 1024 * sequences
    counts = parameters_of(config.model)
    per_token = 12 * (20 * h + 4 * f + 4 * a + 8) + 6 * h + 12 + 2 * vocab
    form = 16 * counts.total + 2 * counts.linear + 2 * vocab * h + n * per_token
    found = max(p.peak_bytes for p in simulate_run(resolve(config), on_gpu=True).phases)
    # position rows and indices, ids and targets, and statistics of the softmax: some bytes per token
    assert found == pytest.approx(form, rel=0.001)


def test_compiled_needs_less_than_eager_for_the_loss() -> None:
    compiled, eager = (
        memory_breakdown(
            replace(resolve(config_of(**GPT2, runtime=way, micro_batch=8)), gpu=presets.gpu("a100-80gb"))
        ).peak_requested_bytes
        for way in ("compiled", "eager")
    )
    assert (eager - compiled) / (8 * 1024 * 50304) > 4


@pytest.mark.parametrize("checkpointing", ["none", "full"])
@pytest.mark.parametrize("accumulation", [1, 3])
@pytest.mark.parametrize("recipe", ["mixed-bf16", "master-bf16", "pure-bf16", "fp32"])
@pytest.mark.parametrize("tied", [True, False])
def test_gradients_end_as_large_as_the_weights(checkpointing: str, accumulation: int, recipe: str, tied: bool) -> None:
    config = config_of(
        runtime="compiled", recipe=recipe, accumulation=accumulation, tied_embeddings=tied,
        activation_checkpointing=checkpointing,
    )  # fmt: skip
    events: list[tuple[int, int]] = []
    simulated, whole = simulate_run(resolve(config)), simulate_run(resolve(config), events=events)
    gradients = parameters_of(config.model).total * presets.recipe(recipe).gradients_bytes_per_parameter
    steps = {phase.phase: phase for phase in simulated.phases}
    assert steps["optimizer_step"].at_peak["gradients"] == gradients
    # tensor by tensor, with both micro-batches, nothing is higher
    assert max(p.peak_bytes for p in whole.phases) == max(p.peak_bytes for p in simulated.phases)
    live: dict[int, int] = {}
    for key, size in events:
        if size:
            live[key] = size
        else:
            del live[key]


def test_new_gradients_stand_beside_the_accumulated_ones() -> None:
    once, twice = (simulate_run(resolve(config_of(runtime="compiled", accumulation=k))) for k in (1, 2))
    ends = [next(p for p in simulated.phases if p.phase == "backward_end") for simulated in (once, twice)]
    gradients = parameters_of(config_of().model).total * 4
    assert ends[1].peak_bytes - ends[0].peak_bytes == gradients
    assert ends[1].at_peak["gradients"] >= 2 * gradients


def test_every_runtime_has_exclusions() -> None:
    choices = TrainingConfig.model_fields["runtime"].annotation
    assert set(EXCLUSIONS) == set(choices.__args__)  # type: ignore[union-attr]
    assert IMPLEMENTATIONS  # the update does not depend on the runtime


@pytest.mark.parametrize(
    "changes",
    [
        {"runtime": "compiled", "dropout": 0.1},
        {"runtime": "compiled", "loss": "chunked"},
        {"runtime": "compiled", "layers": 10_001},
        {"runtime": "compiled", "attention_kernel": "math"},
        {"runtime": "compiled", "residual": "parallel"},
        {"runtime": "compiled", "qk_norm": "head"},
        {"runtime": "fused", "recipe": "mixed-bf16"},
        {"runtime": "fused", "recipe": "master-bf16", "qk_norm": "head"},
    ],
)
def test_options_not_covered_are_bounded_and_reported(changes: dict[str, Any]) -> None:
    config = config_of(**changes)
    reason = not_covered(resolve(config))
    assert reason is not None
    card = presets.gpu("a100-80gb")
    bounded = memory_breakdown(replace(resolve(config), gpu=card))
    eager = memory_breakdown(replace(resolve(config_of(**(changes | {"runtime": "eager"}))), gpu=card))
    assert bounded.peak_requested_bytes == eager.peak_requested_bytes
    assert bounded.peak_allocated_bytes.low is not None and bounded.peak_allocated_bytes.high is not None
    assert eager.peak_allocated_bytes.low is not None and eager.peak_allocated_bytes.high is not None
    assert bounded.peak_allocated_bytes.low < eager.peak_allocated_bytes.low
    assert bounded.peak_allocated_bytes.high > eager.peak_allocated_bytes.high
    on_card = config.model_copy(update={"hardware": config.hardware.model_copy(update={"gpu": "a100-80gb"})})
    said = [f for f in findings(estimate(on_card)) if f.code == "memory_upper_bound"]
    assert len(said) == 1 and reason in said[0].message


@pytest.mark.parametrize(
    "checkpointing",
    [
        {"activation_checkpointing": "selective"},
        {"activation_checkpointing": "full", "activation_checkpointing_every": 2},
    ],
)
def test_checkpointing_that_is_not_covered_is_never_above_none(checkpointing: dict[str, Any]) -> None:
    card = presets.gpu("a100-80gb")
    peaks = []
    for changes in ({}, checkpointing):
        run = replace(resolve(config_of(runtime="compiled", recipe="mixed-bf16", **changes)), gpu=card)
        assert (not_covered(run) is None) == (not changes)
        peaks.append(memory_breakdown(run).peak_requested_bytes)
    eager = config_of(recipe="mixed-bf16", **checkpointing)
    assert peaks[1] == min(peaks[0], memory_breakdown(replace(resolve(eager), gpu=card)).peak_requested_bytes)


def test_an_upper_bound_alone_is_no_verdict() -> None:
    """nanochat d20 on an H100 with a loss in chunks, whose compiled form is not known: the bound is above the card."""
    found = {}
    for micro_batch in ("1", "32", "4096"):
        words = Flags(model="nanochat-d20", gpu="h100-80gb", seq="2048", micro_batch=micro_batch, runtime="compiled",
                      optimizer="muon", tokens="10B", loss_kind="chunked")  # fmt: skip
        plan = estimate(draft(words, as_of="2026-11-21", version="0"))
        found[micro_batch] = plan.memory.fits, [f for f in findings(plan) if f.code in ("fits_unknown", "does_not_fit")]
    assert found["1"] == (True, [])
    verdict, said = found["32"]
    assert verdict is None and [f.code for f in said] == ["fits_unknown"]
    assert "only an upper bound exceeds the device" in said[0].message and "a loss in chunks" in said[0].message


@pytest.mark.parametrize(
    ("shape", "published_mib"),
    [({}, 75_422), ({"layers": "8", "hidden": "512", "heads": "4", "kv_heads": "4", "ffn": "2048"}, 19_176)],
    ids=["d20", "d8"],
)
def test_the_compiled_step_of_nanochat_takes_what_its_logs_print(shape: dict[str, str], published_mib: int) -> None:
    """Its training logs print the allocated peak of one of eight H100s, moments sharded over them and no DDP buckets.

    karpathy/nanochat, October 2025: 32 sequences of 2,048 on each. The plan is 1.4 % and 0.8 % above.
    """
    words = Flags(model="nanochat-d20", gpu="h100-80gb", seq="2048", micro_batch="32", global_batch_tokens="65536",
                  runtime="compiled", optimizer="muon", tokens="10B", **shape)  # fmt: skip
    memory = estimate(draft(words, as_of="2026-11-21", version="0")).memory
    allocated = memory.peak_allocated_bytes.value
    assert allocated is not None
    assert (allocated - 7 / 8 * memory.optimizer_bytes) / 2**20 == pytest.approx(published_mib, rel=0.02)


@pytest.mark.parametrize("runtime", ["eager", "autocast", "compiled"])
def test_covered_options_are_not_bounded(runtime: str) -> None:
    assert not_covered(resolve(config_of(runtime=runtime, recipe="mixed-bf16"))) is None
