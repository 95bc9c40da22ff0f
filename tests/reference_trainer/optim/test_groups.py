"""Groups of parameters: the trainer's are the planner's, each has its own rate and decay, and such a run resumes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch._subclasses.fake_tensor import FakeTensorMode

from planner import presets
from planner.config.run import OptimizerConfig, RunConfig
from planner.counts.groups import parameter_groups
from planner.counts.roles import Role
from planner.counts.tensors import named_tensors, parameter_tensors
from planner.errors import ConfigError
from planner.inputs.draft import draft
from planner.inputs.flags import Flags
from reference_trainer.measure.measure import build_model
from reference_trainer.metrics.records import RunResult
from reference_trainer.optim.optimizers import optimizers_for
from reference_trainer.optim.updater import make_optimizer

MakeConfig = Callable[..., RunConfig]
Train = Callable[..., RunResult]
GROUPS: list[dict[str, Any]] = [
    {"match": "embedding.*", "rate": 4.0, "weight_decay": 0.0},
    {"match": "blocks.*.mlp.*", "rate": 0.5},
    {"match": "blocks.1.*", "rate": 0.0, "weight_decay": 0.3},
]


def grouped(config: RunConfig, **changes: object) -> RunConfig:
    values = config.optimizer.model_dump() | {"groups": GROUPS} | changes
    return config.model_copy(update={"optimizer": OptimizerConfig.model_validate(values)})


@pytest.mark.parametrize("model", presets.model_ids())
def test_tensors_have_the_names_and_shapes_of_the_built_model(model: str) -> None:
    flags = Flags(model=model, layers="4", steps="10", seq="64", micro_batch="1", accumulation="1")
    config = draft(flags, as_of="2026-11-21", version="test")
    with FakeTensorMode():
        built = [(name, tuple(p.shape)) for name, p in build_model(config).named_parameters()]
    assert [(t.name, t.shape) for t in named_tensors(config.model)] == built
    counted = sum(t.count * t.times for t in parameter_tensors(config.model))
    assert counted == sum(t.count for t in named_tensors(config.model))


@pytest.mark.parametrize("name", ["adamw", "muon", "adafactor"])
def test_the_optimizers_groups_are_those_that_are_shown(tiny: MakeConfig, name: str) -> None:
    implementation = "foreach" if name == "adafactor" else "fused"
    config = grouped(tiny(), name=name, implementation=implementation)
    updater = make_optimizer(build_model(config), config)
    updater.set_lr(0.01)
    found: dict[tuple[float, float], int] = {}
    for group in updater.param_groups:
        key = (group["lr"], group["weight_decay"])
        found[key] = found.get(key, 0) + sum(p.numel() for p in group["params"])
    shown: dict[tuple[float, float], int] = {}
    for g in parameter_groups(config):
        key = (0.01 * g.rate, g.weight_decay)
        shown[key] = shown.get(key, 0) + g.parameters
    assert found == shown and len(found)
    assert updater.lr == 0.01


def test_the_first_rule_that_matches_counts_and_a_frozen_block_stays(tiny: MakeConfig) -> None:
    config = grouped(tiny())
    updater = make_optimizer(build_model(config), config)
    before = {name: w.detach().clone() for name, w in updater.weights.items()}
    updater.set_lr(0.01)
    for w in updater.parameters.values():
        w.grad = torch.ones_like(w)
    updater.step()
    moved = {name: float((w.detach() - before[name]).abs().mean()) for name, w in updater.weights.items()}
    assert moved["blocks.1.attention.qkv.weight"] == 0.0 == moved["blocks.1.mlp_norm.weight"]
    # the first update of AdamW is the rate in size; decay takes little of it
    assert moved["blocks.1.mlp.up.bias"] == pytest.approx(0.005, rel=1e-3)
    assert moved["embedding.weight"] == pytest.approx(0.04, rel=1e-3)
    assert moved["blocks.0.attention.qkv.bias"] == pytest.approx(0.01, rel=1e-3)


def test_a_run_in_groups_continues_to_the_bit(tiny: MakeConfig, train: Train, tmp_path: Path) -> None:
    config = grouped(tiny())
    whole = train(config, "whole")
    parts = [train(config, "parts", stop_after=3), train(config, "parts", resume=True)]
    assert [loss for part in parts for loss in part.losses] == whole.losses
    assert whole.losses != train(tiny(), "without").losses
    for file in ("model.safetensors", "optimizer.safetensors"):
        one, other = (load_file(tmp_path / name / "checkpoints/step-00000008" / file) for name in ("whole", "parts"))
        assert one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


def test_a_rule_without_parameters_is_refused_with_names(tiny: MakeConfig) -> None:
    config = grouped(tiny(), groups=[{"match": "blocks.0.mlp.upp.weight"}])
    with pytest.raises(ConfigError, match="is no parameter of tiny") as caught:
        parameter_groups(config)
    assert "blocks.0.mlp.up.weight" in caught.value.remedy
    shadowed = grouped(tiny(), groups=[{"match": "blocks.*"}, {"match": "blocks.0.*"}])
    with pytest.raises(ConfigError, match="left without a parameter"):
        parameter_groups(shadowed)


def test_a_single_weight_has_a_group_without_the_others(tiny: MakeConfig) -> None:
    config, name = grouped(tiny()).optimizer, "blocks.0.mlp.up.weight"
    (optimizer,) = optimizers_for({name: torch.zeros(2, 2)}, {name: Role.MATRIX}, config, None)
    assert [group["lr_factor"] for group in optimizer.param_groups] == [0.5]
