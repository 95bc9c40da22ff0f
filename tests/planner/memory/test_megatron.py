"""The closed forms of fused kernels against the numbers that their authors publish."""

from __future__ import annotations

from typing import Any

import pytest

from planner.config.run import RunConfig
from planner.counts.parameters import parameters_of
from planner.counts.run import resolve
from planner.memory.breakdown import memory_breakdown
from planner.memory.eager.context import simulation_context
from planner.memory.megatron import fused_program
from planner.memory.phases import simulate_run
from tests.reference_trainer.conftest import config_of

# Korthikanti et al. 2022 (arXiv 2205.05198), tables 1 and 3: layers, hidden, heads, sequences of one micro-batch
MODELS = {"22B": (48, 6144, 64, 4), "GPT-3 175B": (96, 12288, 96, 1), "530B": (105, 20480, 128, 1)}
SEQ, VOCAB = 2048, 51200


def megatron(name: str, **changes: Any) -> RunConfig:
    layers, hidden, heads, sequences = MODELS[name]
    width = {"heads": heads, "kv_heads": heads, "head_dim": hidden // heads, "ffn": 4 * hidden, "vocab": VOCAB}
    run = {"seq": SEQ, "context": SEQ, "micro_batch": sequences, "accumulation": 1, "recipe": "master-bf16"}
    fused = {"runtime": "fused", "dropout": 0.1, "attention_kernel": "math"}
    return config_of(**({"layers": layers, "hidden": hidden} | width | run | fused | changes))


def block_bytes(config: RunConfig) -> int:
    return sum(stage.saved_bytes for stage in fused_program(simulation_context(resolve(config))).blocks[0])


@pytest.mark.parametrize("name", MODELS)
def test_a_layer_is_34_sbh_and_the_scores(name: str) -> None:
    _, hidden, heads, sequences = MODELS[name]
    sbh = SEQ * sequences * hidden
    scores = 5 * heads * SEQ**2 * sequences
    assert block_bytes(megatron(name)) == 34 * sbh + scores
    assert block_bytes(megatron(name, activation_checkpointing="selective")) == 34 * sbh


def test_the_terms_of_a_layer() -> None:
    """Section 4.1: attention 11 sbh beside the scores, MLP 19 sbh, norms 4 sbh."""
    _, hidden, _, sequences = MODELS["22B"]
    config = megatron("22B", activation_checkpointing="selective")
    stages = fused_program(simulation_context(resolve(config))).blocks[0]
    border = next(i for i, stage in enumerate(stages) if stage.label == "blocks.mlp_norm")
    sbh = SEQ * sequences * hidden
    norms = [stage.saved_bytes / sbh for stage in stages if stage.label.endswith("_norm")]
    parts = stages[1:border], stages[border + 1 :]
    attention, mlp = (sum(stage.saved_bytes for stage in part) / sbh for part in parts)
    assert norms == [2, 2]
    assert (attention, mlp) == (11, 19)


@pytest.mark.parametrize(("name", "scores", "share"), [("GPT-3 175B", 80, 0.70), ("530B", 64, 0.65)])
def test_the_fraction_that_selective_recomputation_saves(name: str, scores: int, share: float) -> None:
    """Section 5: the attention factor 5 a s / h is 80 and 64, and leaving it out saves 70 % and 65 %."""
    _, hidden, _, sequences = MODELS[name]
    every, selective = (block_bytes(megatron(name, activation_checkpointing=c)) for c in ("none", "selective"))
    assert (every - selective) / (SEQ * sequences * hidden) == scores
    assert 1 - selective / every == pytest.approx(share, abs=0.005)


@pytest.mark.parametrize("ffn", [4, 3])
def test_megatrons_own_report(ffn: int) -> None:
    """github.com/NVIDIA/Megatron-LM at 00caa53, megatron/training/theoretical_memory_usage.py, on one device.

    Layers sbh (18 + 4 f/h), dropout of the embedding sbh, last norm and output layer with loss 4 sbh (1 + v/h); its
    8 bytes per token of ids count here with the inputs.
    """
    layers, hidden, _, sequences = MODELS["22B"]
    config = megatron("22B", ffn=ffn * hidden, activation_checkpointing="selective")
    sb = SEQ * sequences
    reported = layers * sb * hidden * (18 + 4 * ffn) + sb * hidden + 4 * sb * hidden * (1 + VOCAB / hidden)
    assert sum(fused_program(simulation_context(resolve(config))).saved_by_operator().values()) == reported


def test_without_sequence_parallelism_10_and_24_are_34() -> None:
    """The same file, without sequence parallelism: sbh (10 + 24 / t), which on one device is the same 34 sbh."""
    _, hidden, _, sequences = MODELS["22B"]
    assert block_bytes(megatron("22B", activation_checkpointing="selective")) == SEQ * sequences * hidden * (10 + 24)


def test_full_recomputation_keeps_2_sbh() -> None:
    layers, hidden, _, sequences = MODELS["22B"]
    saved = fused_program(
        simulation_context(resolve(megatron("22B", activation_checkpointing="full")))
    ).saved_by_operator()
    assert saved["blocks"] == layers * 2 * SEQ * sequences * hidden


def test_flash_stores_no_scores_and_no_dropout_no_masks() -> None:
    _, hidden, heads, sequences = MODELS["22B"]
    tokens = SEQ * sequences
    flash = block_bytes(megatron("22B", attention_kernel="flash"))
    assert flash == 34 * tokens * hidden + 4 * tokens * heads
    assert block_bytes(megatron("22B", attention_kernel="flash", dropout=0.0)) == flash - 2 * tokens * hidden


def test_grouped_heads_and_a_gate() -> None:
    """Norms 4h, inputs 2h + 2q + 2h, queries, keys and values 2(q + 2k), a gated MLP's 4f and 2f; flash 4a."""
    hidden, heads, kv, ffn = 512, 8, 2, 1408
    config = megatron(
        "22B", hidden=hidden, heads=heads, kv_heads=kv, head_dim=64, ffn=ffn, mlp="swiglu", norm="rmsnorm",
        position="rotary", biases="none", dropout=0.0, attention_kernel="flash",
    )  # fmt: skip
    per_token = 4 * hidden + 2 * hidden + 2 * (hidden + 2 * 128) + 4 * heads + 2 * hidden + 2 * hidden + 6 * ffn
    assert block_bytes(config) == SEQ * 4 * per_token


@pytest.mark.parametrize("accumulation", [1, 2])
@pytest.mark.parametrize("checkpointing", ["none", "selective", "full"])
def test_the_simulation_keeps_what_is_saved_and_ends_with_the_gradients(checkpointing: str, accumulation: int) -> None:
    config = config_of(
        recipe="master-bf16", runtime="fused", activation_checkpointing=checkpointing, accumulation=accumulation
    )
    simulated = simulate_run(resolve(config))
    phases = {phase.phase: phase for phase in simulated.phases}
    saved = sum(simulated.saved_by_operator.values())
    parameters = parameters_of(config.model).total
    state = parameters * (2 + 4 + 8 + (4 if accumulation > 1 else 0))
    inputs = 2 * 8 * config.training.micro_batch * config.training.seq
    assert phases["forward_end"].peak_bytes >= state + inputs + saved
    assert phases["forward_end"].at_peak["gradients"] == (4 * parameters if accumulation > 1 else 0)
    assert phases["optimizer_step"].at_peak["gradients"] == 4 * parameters


def test_the_breakdown_names_the_operators() -> None:
    memory = memory_breakdown(resolve(config_of(recipe="master-bf16", runtime="fused")))
    assert memory.saved_bytes == sum(memory.saved_by_operator.values())
    assert memory.saved_by_operator["blocks.attention"] > 0


def test_a_norm_of_the_embedding_keeps_its_input_and_adds_its_gradients() -> None:
    """2 sbh, as each other norm (section 4.1)."""
    _, hidden, _, sequences = MODELS["22B"]
    plain, normed = (
        fused_program(simulation_context(resolve(megatron("22B", embedding_norm=on)))).embedding for on in (False, True)
    )
    assert normed.saved_bytes - plain.saved_bytes == 2 * SEQ * sequences * hidden
    assert sum(normed.weight_gradients) - sum(plain.weight_gradients) == 2 * 2 * hidden


@pytest.mark.parametrize("recipe", ["master-bf16", "master-bf16-grad16"])
def test_narrow_gradients_are_widened_all_at_once(recipe: str) -> None:
    """Megatron's optimizer makes main gradients of all parameters before it updates the first."""
    config = config_of(recipe=recipe, runtime="fused", implementation="fused")
    phases = {phase.phase: phase for phase in simulate_run(resolve(config)).phases}
    parameters = parameters_of(config.model).total
    widened = 4 * parameters if recipe == "master-bf16-grad16" else 0
    assert phases["optimizer_step"].at_peak["temporary"] >= widened
    assert phases["optimizer_step"].peak_bytes < parameters * (2 + 4 + 8 + (2 if widened else 4)) + widened + 4096
