"""Bytes of state of every optimizer, and a memory breakdown whose parts sum to the whole."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner import presets
from planner.config.run import IMPLEMENTATIONS, WITH_OWN_STATE_TYPE, OptimizerConfig, RunConfig
from planner.counts.roles import Role
from planner.counts.run import resolve
from planner.counts.tensors import ParameterTensor, parameter_tensors
from planner.inputs.draft import draft
from planner.inputs.flags import Flags
from planner.memory.breakdown import memory_breakdown
from planner.memory.ledger import COMPONENTS
from planner.memory.optimizer_state import moment_itemsize, optimizer_memory, state_of_tensor, update_groups
from tests.examples import examples

MATRIX = ParameterTensor("attention.qkv.weight", (4096, 1024), Role.MATRIX)
COUNT = MATRIX.count


def config_of(**flags: str) -> RunConfig:
    given = {"model": "gpt2", "steps": "10", "gpu": "h100-80gb", "seq": "128", "micro_batch": "1"} | flags
    return draft(Flags(**given), as_of="2026-11-21", version="test")


def per_parameter(tensor: ParameterTensor, **flags: str) -> float:
    """Bytes of state per parameter, the counters of updates left out."""
    config = config_of(**flags)
    found = state_of_tensor(config.optimizer, moment_itemsize(resolve(config)), tensor)
    return sum(size for size in found if size > 4) / tensor.count


def test_3_9_bytes_of_state_per_parameter() -> None:
    assert per_parameter(MATRIX, optimizer="adamw") == 8
    assert per_parameter(MATRIX, optimizer="adamw8bit") == 2 + 2 * 4 / 256 == 2.03125
    assert per_parameter(MATRIX, optimizer="lion") == 4
    assert per_parameter(MATRIX, optimizer="adafactor") * COUNT == 4 * (4096 + 1024)
    assert per_parameter(MATRIX, optimizer="sgd") == 4
    assert per_parameter(MATRIX, optimizer="sgd", momentum="0") == 0
    assert per_parameter(MATRIX, optimizer="muon") == 4


def test_3_9_where_the_general_rule_does_not_hold() -> None:
    vector = ParameterTensor("norm.weight", (1024,), Role.GAIN)
    small = ParameterTensor("mlp.up.weight", (63, 65), Role.MATRIX)
    table = ParameterTensor("embedding.weight", (4096, 1024), Role.TABLE)
    odd = ParameterTensor("mlp.up.weight", (4097, 1), Role.MATRIX)
    assert per_parameter(vector, optimizer="adafactor") == 4
    assert per_parameter(vector, optimizer="muon") == per_parameter(table, optimizer="muon") == 8
    assert small.count == 4095 and per_parameter(small, optimizer="adamw8bit") == 8
    assert per_parameter(odd, optimizer="adamw8bit") * 4097 == 2 * 4097 + 2 * 4 * math.ceil(4097 / 256)
    experts = ParameterTensor("mlp.experts.up", (8, 64, 32), Role.EXPERTS)
    assert per_parameter(experts, optimizer="adafactor") * experts.count == 4 * 8 * (64 + 32)
    assert per_parameter(experts, optimizer="muon") == 8


def test_moments_have_the_type_asked_for_else_that_of_what_is_updated() -> None:
    assert per_parameter(MATRIX, optimizer="adamw", state_dtype="bf16") == 4
    assert per_parameter(MATRIX, recipe="pure-bf16") == 4
    assert per_parameter(MATRIX, recipe="pure-bf16", state_dtype="fp32") == 8
    assert per_parameter(MATRIX, recipe="master-bf16") == 8
    assert per_parameter(MATRIX, recipe="fp8-deepseek-v3") == 4


@pytest.mark.parametrize(("recipe", "expected"), [("master-bf16", 18), ("master-bf16-grad16", 16), ("mixed-bf16", 16),
                                                  ("pure-bf16", 8), ("fp32", 16), ("fp8-deepseek-v3", 14)])  # fmt: skip
def test_bytes_per_parameter_of_a_recipe(recipe: str, expected: int) -> None:
    config = config_of(recipe=recipe)
    m, r = memory_breakdown(replace(resolve(config), gpu=presets.gpu("h100-80gb"))), presets.recipe(recipe)
    total = sum(t.count * t.times for t in parameter_tensors(config.model))
    counters = 4 * sum(t.times for t in parameter_tensors(config.model))
    linear = 12 * 12 * 768**2 + 50257 * 768
    casts = r.held_casts_bytes_per_linear_weight * linear
    state = m.weights_bytes - casts + m.gradients_bytes + m.master_weights_bytes + m.optimizer_bytes - counters
    assert state == expected * total


def test_the_peak_of_the_products_is_the_recipes_own() -> None:
    """At a given MFU the time is inverse to the peak of the compute type, which the data sheet gives for each."""
    from planner.plan import estimate

    card = presets.gpu("h100-80gb")
    for recipe, dtype in {"mixed-bf16": "bf16", "fp32": "fp32", "tf32": "tf32", "mixed-fp16": "fp16",
                          "fp8-te": "fp8", "master-bf16": "bf16"}.items():  # fmt: skip
        plan = estimate(config_of(recipe=recipe, mfu="0.4"))
        assert plan.throughput.step_seconds.value is not None
        rate = plan.flops.per_step_model / plan.throughput.step_seconds.value
        assert rate == pytest.approx(0.4 * card.peak_dense_flops[dtype])


OPTIMIZERS = st.sampled_from([(name, way) for name, ways in IMPLEMENTATIONS.items() for way in ways])


@examples(40)
@given(
    pair=OPTIMIZERS,
    recipe=st.sampled_from(presets.recipe_ids()),
    state=st.sampled_from([None, "fp32", "bf16"]),
    layers=st.integers(1, 5),
    accumulation=st.integers(1, 3),
)
def test_parts_sum_to_the_whole(
    pair: tuple[str, str], recipe: str, state: str | None, layers: int, accumulation: int
) -> None:
    name, way = pair
    flags: dict[str, Any] = {"layers": str(layers), "accumulation": str(accumulation), "recipe": recipe}
    config = config_of(model="pythia-70m" if "pythia-70m" in presets.model_ids() else "gpt2", **flags)
    values = config.optimizer.model_dump() | {"name": name, "implementation": way}
    if state is not None and name in WITH_OWN_STATE_TYPE:
        values["state_dtype"] = state
    config = config.model_copy(update={"optimizer": OptimizerConfig.model_validate(values)})
    account = optimizer_memory(resolve(config))
    assert account.state_bytes == sum(size * times for size, times in account.storages)
    memory = memory_breakdown(replace(resolve(config), gpu=presets.gpu("h100-80gb")))
    assert memory.optimizer_bytes == account.state_bytes
    for phase in memory.phases:
        assert sum(phase.at_peak[c] for c in COMPONENTS) == phase.peak_bytes
    steady = next(p for p in memory.phases if p.phase == "optimizer_step")
    assert steady.at_peak["optimizer"] == account.state_bytes
    assert steady.at_peak["master_weights"] == memory.master_weights_bytes


@pytest.mark.parametrize("name", ["gpt2", "mixtral-8x7b", "deepseek-v2-lite"])
@pytest.mark.parametrize("whole", [True, False])
def test_every_tensor_is_updated_once(name: str, whole: bool) -> None:
    if name not in presets.model_ids():
        pytest.skip("not among the presets")
    for optimizer in ("muon", "adamw"):
        config = config_of(model=name, optimizer=optimizer)
        updated: dict[tuple[str, tuple[int, ...]], int] = {}
        for _, decays, group in update_groups(resolve(config), whole):
            for tensor in group:
                assert tensor.role.decays is decays
                updated[tensor.name, tensor.shape] = updated.get((tensor.name, tensor.shape), 0) + tensor.times
        expected: dict[tuple[str, tuple[int, ...]], int] = {}
        for tensor in parameter_tensors(config.model):
            expected[tensor.name, tensor.shape] = expected.get((tensor.name, tensor.shape), 0) + tensor.times
        assert updated == expected


def test_every_default_has_a_source() -> None:
    from planner.rules import rules

    table = rules("optimizers")
    assert set(IMPLEMENTATIONS) == {name for name, rule in table.items() if isinstance(rule, dict)}
    for name in IMPLEMENTATIONS:
        assert len(table[name]["source"]) > 9
        config = config_of(optimizer=name)
        said = next(a for a in config.provenance.assumptions if a.key == "optimizer")
        assert said.source == table[name]["source"] and said.value.startswith(table[name]["title"])
        assert config.optimizer.weight_decay == table[name]["weight_decay"]


def test_another_optimizer_over_a_file_brings_its_own_numbers() -> None:
    from planner.errors import InputError

    def over(base: RunConfig, **flags: str) -> OptimizerConfig:
        return draft(Flags(**flags), as_of="2026-11-21", version="test", base=base).optimizer

    base = config_of(optimizer="adamw")
    changed = base.model_copy(update={"optimizer": base.optimizer.model_copy(update={"beta2": 0.98, "clip_norm": 0.5})})
    assert over(changed, optimizer="adamw") == over(changed) == changed.optimizer
    lion = over(changed, optimizer="lion")
    assert (lion.beta2, lion.implementation, lion.clip_norm) == (0.99, "for-loop", 0.5)
    assert over(changed, state_dtype="bf16").implementation == "for-loop"
    with pytest.raises(InputError, match="--state-dtype bf16: sgd"):
        over(changed, optimizer="sgd", state_dtype="bf16")
    with pytest.raises(InputError, match="--optimizer-implementation fused: adafactor"):
        over(changed, optimizer="adafactor", optimizer_implementation="fused")


def test_no_recipe_names_what_it_does_not_describe() -> None:
    for id in presets.recipe_ids():
        text = (Path(presets.PRESETS) / "recipes" / f"{id}.toml").read_text(encoding="utf-8")
        assert all("#" in line for line in text.splitlines() if "bytes" in line.partition("=")[0]), id
