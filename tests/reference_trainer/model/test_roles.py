"""The role of every parameter tensor: one table, and what initialisation, weight decay and Muon make of it."""

from __future__ import annotations

import math
import re

import pytest
import torch
from torch import nn

from planner import presets
from planner.config.model import ModelConfig
from planner.config.run import TrainingConfig
from planner.counts.roles import Role
from planner.counts.tensors import named_tensors
from reference_trainer.model.gpt import GPT
from reference_trainer.model.layers import make_linear, make_table
from reference_trainer.model.roles import assign_roles, parameter_roles
from tests.reference_trainer.conftest import TRAINING
from tests.reference_trainer.model.test_gpt import CASES, built, sections

BIASED_LAYERS = ("attention.qkv", "attention.proj", "mlp.gate", "mlp.up", "mlp.down")
# every tensor that a model of any options can have, block numbers left out
ROLES = {
    "embedding.weight": Role.TABLE,
    "position.weight": Role.TABLE,
    "head.weight": Role.HEAD,
    "blocks.attention.qkv.weight": Role.MATRIX,
    "blocks.attention.query_down.weight": Role.MATRIX,
    "blocks.attention.query.weight": Role.MATRIX,
    "blocks.attention.kv_down.weight": Role.MATRIX,
    "blocks.attention.kv_up.weight": Role.MATRIX,
    "blocks.attention.proj.weight": Role.RESIDUAL_MATRIX,
    "blocks.mlp.gate.weight": Role.MATRIX,
    "blocks.mlp.up.weight": Role.MATRIX,
    "blocks.mlp.down.weight": Role.RESIDUAL_MATRIX,
    "blocks.mlp.router.weight": Role.MATRIX,
    "blocks.mlp.experts.gate": Role.EXPERTS,
    "blocks.mlp.experts.up": Role.EXPERTS,
    "blocks.mlp.experts.down": Role.RESIDUAL_EXPERTS,
    "blocks.mlp.shared.gate.weight": Role.MATRIX,
    "blocks.mlp.shared.up.weight": Role.MATRIX,
    "blocks.mlp.shared.down.weight": Role.RESIDUAL_MATRIX,
    "blocks.mlp.shared_gate.weight": Role.MATRIX,
    **{
        f"{norm}.{part}": role
        for norm in (
            "norm",
            "embedding_norm",
            *(f"blocks.{name}" for name in ("attention_norm", "attention_post_norm", "mlp_norm", "mlp_post_norm")),
            *(f"blocks.attention.{name}" for name in ("query_norm", "key_norm", "kv_norm")),
        )
        for part, role in (("weight", Role.GAIN), ("bias", Role.BIAS))
    },
    **{f"blocks.{name}.bias": Role.BIAS for name in BIASED_LAYERS},
}


def without_number(name: str) -> str:
    return re.sub(r"^blocks\.\d+\.", "blocks.", name)


@pytest.mark.parametrize("case", CASES)
def test_layers_and_planner_state_the_role_of_the_table(case: str) -> None:
    model, training = sections(CASES[case])
    with torch.device("meta"):
        roles = parameter_roles(GPT(model, training, torch.float32))
    assert roles == {name: ROLES[without_number(name)] for name in roles}
    assert list(roles.items()) == [(t.name, t.role) for t in named_tensors(model)]


def test_the_table_has_no_tensor_that_no_model_has() -> None:
    cases = [*CASES.values(), {"norm_placement": "both"}]  # no case has a bias in the norms after a sub-layer
    found = {without_number(t.name) for case in cases for t in named_tensors(sections(case)[0])}
    never = {"blocks.attention.kv_norm.bias"}  # norms inside latent attention are RMSNorms
    assert set(ROLES) - found == never


def test_what_a_role_decides() -> None:
    assert [role for role in Role if not role.decays] == [Role.GAIN, Role.BIAS]
    assert [role for role in Role if role.has_muon] == [Role.MATRIX, Role.RESIDUAL_MATRIX]
    assert [r for r in Role if r.residual_std] == [Role.RESIDUAL_MATRIX, Role.RESIDUAL_EXPERTS]


def test_projections_to_a_latent_are_drawn_like_any_other() -> None:
    """They write to no residual stream: 0.02, where 12 layers would make 0.004 of it."""
    gpt = built(CASES["deepseek v3"] | {"hidden": 96, "layers": 12})
    for name in ("query_down", "kv_down"):
        values = gpt.get_parameter(f"blocks.0.attention.{name}.weight").detach()
        assert values.std().item() == pytest.approx(0.02, rel=0.1), name


@pytest.mark.parametrize("case", ["gpt2", "olmo2", "deepseek v3", "qwen moe", "autocast, experts"])
def test_initial_values_follow_the_role(case: str) -> None:
    gpt = built(CASES[case] | {"hidden": 96, "layers": 3})
    for name, role in parameter_roles(gpt).items():
        values = gpt.get_parameter(name).detach()
        if role is Role.BIAS:
            assert not values.any(), name
        elif role is Role.GAIN:
            assert (values == 1).all(), name
        else:
            std = 0.02 / math.sqrt(2 * 3) if role.residual_std else 0.02  # GPT-2's, by its numbers and not by ours
            assert values.mean().item() == pytest.approx(0, abs=4 * std / math.sqrt(values.numel())), name
            assert values.std().item() == pytest.approx(std, rel=4 / math.sqrt(2 * values.numel())), name


@pytest.mark.parametrize(
    ("id", "std", "residual"),
    [
        # arXiv 2405.04434, section 3.1.2: "all learnable parameters are randomly initialized with a standard deviation
        # of 0.006"; transformers' Mixtral draws every matrix with initializer_range
        ("deepseek-v2-lite", 0.006, 0.006),
        ("mixtral-8x7b", 0.02, 0.02),
        ("gpt2", 0.02, 0.02 / math.sqrt(2 * 3)),
    ],
)
def test_a_shrunk_preset_is_drawn_as_published(id: str, std: float, residual: float) -> None:
    shape = dict(presets.model(id).shape) | {"layers": 3, "hidden": 96, "heads": 2, "vocab": 512, "ffn": 128}
    shape |= {"kv_heads": 2, "context": 32}
    if "mla" in shape:
        shape["moe"] = {**shape["moe"], "experts": 4, "top_k": 2, "expert_ffn": 64, "shared_ffn": 96}
        shape["mla"] = dict.fromkeys(shape["mla"], 64)
        shape["head_dim"] = 128
    elif "moe" in shape:
        shape["moe"] = {**shape["moe"], "expert_ffn": 64}
    gpt = GPT(ModelConfig(name=id, source="", **shape), TrainingConfig(**dict(TRAINING)), torch.float32)
    for name, role in parameter_roles(gpt).items():
        values = gpt.get_parameter(name).detach()
        if role not in (Role.GAIN, Role.BIAS):
            expected = residual if role.residual_std else std
            assert values.std().item() == pytest.approx(expected, rel=4 / math.sqrt(2 * values.numel())), name


def test_a_tied_head_has_one_role_and_an_untied_one_its_own() -> None:
    assert "head.weight" not in parameter_roles(built({"tied_embeddings": True}))
    assert parameter_roles(built({"tied_embeddings": False}))["head.weight"] is Role.HEAD


def test_a_layer_without_a_role_is_noticed() -> None:
    training = TrainingConfig(**dict(TRAINING))
    whole = nn.Sequential(make_table(4, 2), make_linear(training, 2, 3, bias=True, role=Role.HEAD))
    assert parameter_roles(whole) == {"0.weight": Role.TABLE, "1.weight": Role.HEAD, "1.bias": Role.BIAS}
    whole.append(nn.Linear(3, 3, bias=False))
    with pytest.raises(KeyError, match=r"2\.weight"):
        parameter_roles(whole)
    assign_roles(whole[2], weight=Role.MATRIX)
    assert parameter_roles(whole)["2.weight"] is Role.MATRIX
