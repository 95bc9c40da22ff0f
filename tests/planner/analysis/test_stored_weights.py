"""A stored model against the config: one finding if they agree, else one finding per group of differences."""

from __future__ import annotations

from typing import Any

import pytest

from planner.analysis.stored_weights import stored_of, weights_findings
from planner.config.model import ModelConfig
from planner.counts.parameters import parameters_of
from planner.inputs.safetensors import StoredTensor

SHAPE: dict[str, Any] = {
    "layers": 2, "hidden": 16, "heads": 2, "kv_heads": 2, "head_dim": 8, "ffn": 64, "vocab": 50, "context": 32,
    "position": "learned", "norm": "layernorm", "norm_parameters": "gain+bias", "mlp": "gelu", "biases": "all",
    "tied_embeddings": True,
}  # fmt: skip


def model(**changes: Any) -> ModelConfig:
    return ModelConfig(name="tiny", source="here", **(SHAPE | changes))


def gpt2_file(*more: tuple[str, tuple[int, ...]], layers: int = 2, dtype: str = "F32") -> tuple[StoredTensor, ...]:
    """The tensors of a GPT-2 checkpoint of that shape, under the names of its release."""
    h = 16
    names: list[tuple[str, tuple[int, ...]]] = [("wte.weight", (50, h)), ("wpe.weight", (32, h))]
    for i in range(layers):
        sizes = {"ln_1": (h,), "attn.c_attn": (h, 3 * h), "attn.c_proj": (h, h), "ln_2": (h,)}
        sizes |= {"mlp.c_fc": (h, 4 * h), "mlp.c_proj": (4 * h, h)}
        for name, shape in sizes.items():
            names += [(f"h.{i}.{name}.weight", shape), (f"h.{i}.{name}.bias", shape[-1:])]
        names.append((f"h.{i}.attn.bias", (1, 1, 32, 32)))  # the causal mask, which is no parameter
    names += [("ln_f.weight", (h,)), ("ln_f.bias", (h,))]
    return tuple(StoredTensor(name, dtype, shape) for name, shape in [*names, *more])


def codes(tensors: tuple[StoredTensor, ...], config: ModelConfig) -> list[str]:
    return [f.code for f in weights_findings(tensors, config, "x.safetensors")]


def test_the_file_of_the_model() -> None:
    (found,) = weights_findings(gpt2_file(), model(), "x.safetensors")
    total = parameters_of(model()).total
    assert (found.level, found.code) == ("note", "weights_match")
    for words in (f"{total:,} parameters of tiny", f"F32 {total:,}", "2 blocks of width 16", "50 rows", "stored once"):
        assert words in found.message, words
    assert "2 buffers" in found.message and "h.0.attn.bias" in found.message


def test_a_tied_head_may_be_stored_twice() -> None:
    twice = gpt2_file(("lm_head.weight", (50, 16)))
    (found,) = weights_findings(twice, model(), "x")
    assert found.code == "weights_match" and "a second time" in found.message
    assert codes(twice, model(tied_embeddings=False)) == ["weights_match"]
    assert codes(gpt2_file(), model(tied_embeddings=False)) == ["weights_head", "weights_parameters"]


def test_types_are_counted_apart() -> None:
    mixed = gpt2_file()[:2] + gpt2_file(dtype="BF16")[2:]
    assert stored_of(mixed).by_dtype == {"F32": 82 * 16, "BF16": parameters_of(model()).total - 82 * 16}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"layers": 3}, ["weights_layers", "weights_blocks", "weights_parameters"]),
        ({"vocab": 64}, ["weights_embedding", "weights_parameters"]),
        ({"hidden": 32, "head_dim": 16}, ["weights_embedding", "weights_blocks", "weights_parameters"]),
        ({"ffn": 80}, ["weights_blocks", "weights_parameters"]),
        ({"context": 40}, ["weights_parameters"]),
        ({"mlp": "relu"}, ["weights_match"]),  # the same tensors
    ],
)
def test_each_group_that_differs_is_a_finding(changes: dict[str, Any], expected: list[str]) -> None:
    assert codes(gpt2_file(), model(**changes)) == expected


def test_the_difference_is_said_in_numbers() -> None:
    (found,) = weights_findings(gpt2_file(), model(context=40), "x.safetensors")
    assert found.level == "warning" and found.message.startswith("x.safetensors: ") and "-128" in found.message


@pytest.mark.parametrize("tensors", [(), (StoredTensor("a", "F32", (2, 3)),)])
def test_a_file_of_something_else(tensors: tuple[StoredTensor, ...]) -> None:
    assert codes(tensors, model()) == ["weights_layers", "weights_embedding", "weights_blocks", "weights_parameters"]


def test_tensors_that_no_gradient_changes_are_not_counted() -> None:
    buffers = (
        ("layers.0.self_attn.rotary_emb.inv_freq", (8,)),
        ("layers.1.mlp.gate.e_score_correction_bias", (4,)),
        ("gpt_neox.layers.0.attention.masked_bias", ()),
        ("layers.0.mlp.up_proj.weight_scale_inv", (1, 1)),
    )
    stored = stored_of(tuple(StoredTensor(name, "F32", shape) for name, shape in buffers))
    assert (stored.parameters, len(stored.buffers), stored.blocks) == (0, 4, 0)
    real = ("h.0.attn.c_attn.bias", "layers.0.attention.bias", "h.0.attn.c_proj.bias")
    assert stored_of(tuple(StoredTensor(name, "F32", (3,)) for name in real)).parameters == 9
