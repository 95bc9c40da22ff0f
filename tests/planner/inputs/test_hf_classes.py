"""A known model_type with another class, or with keys of other tensors, is refused; absent keys have its defaults."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from planner.counts.parameters import parameters_of
from planner.errors import InputError
from planner.inputs.huggingface import FAMILIES, hf_model, hf_model_of, known_keys
from tests.planner.inputs.test_huggingface import CASES, GPT2, HERE, LLAMA, config_of

FILES = Path(__file__).parents[2] / "data" / "hf_configs"


@pytest.mark.parametrize(
    ("file", "name"),
    [("gpt2-multiquery-custom", "GPT2LMHeadCustomModel"), ("llama-draft-module", "LlamaForCausalLMEagle3")],
)
def test_a_custom_class_is_refused_by_its_name(file: str, name: str) -> None:
    with pytest.raises(InputError) as caught:
        hf_model(FILES / f"{file}.json")
    assert name in caught.value.what and "--safetensors" in caught.value.remedy


def test_the_first_conversions_of_llama_are_read() -> None:
    found = hf_model(FILES / "llama-old-key.json")
    assert parameters_of(found.model).total == 6_738_415_616 and found.model.context == 2048
    values = json.loads((FILES / "llama-old-key.json").read_text(encoding="utf-8"))
    del values["max_sequence_length"]
    found = hf_model_of(values, HERE)
    assert found.model.context == 2048
    assert "max_position_embeddings 2,048" in found.notes[0].value and "llama" in found.notes[0].reason
    assert hf_model_of(values | {"max_sequence_length": 4096}, HERE).model.context == 4096


@pytest.mark.parametrize("kind", sorted(FAMILIES))
def test_the_type_s_own_class_is_counted_and_any_other_is_not(kind: str) -> None:
    config = config_of(kind)
    for name in known_keys(kind)["classes"]:
        own = {"architectures": [name], "auto_map": {"AutoModelForCausalLM": f"modeling.{name}"}}
        assert hf_model_of(config | own, HERE).model == hf_model_of(config, HERE).model
        for other in (f"{name}Custom", f"Custom{name}", name.lower(), "LlamaForSequenceClassification", ""):
            with pytest.raises(InputError, match="architectures"):
                hf_model_of(config | {"architectures": [other]}, HERE)
            with pytest.raises(InputError, match="auto_map"):
                hf_model_of(config | {"auto_map": {"AutoModelForCausalLM": f"user/repo--modeling.{other}"}}, HERE)
    for strange in ("LlamaForCausalLM", {"a": 1}, [7], 7):
        with pytest.raises(InputError, match="architectures"):
            hf_model_of(config | {"architectures": strange}, HERE)
    for strange in ([1], "x", {"AutoModelForCausalLM": 7}):
        with pytest.raises(InputError, match="auto_map"):
            hf_model_of(config | {"auto_map": strange}, HERE)


def test_a_model_without_a_head_is_counted_where_the_head_is_the_embedding_table() -> None:
    assert hf_model_of(GPT2 | {"architectures": ["GPT2Model"]}, HERE).model.tied_embeddings
    with pytest.raises(InputError, match="architectures = LlamaModel") as caught:
        hf_model_of(LLAMA | {"architectures": ["LlamaModel"]}, HERE)
    assert "no output head" in caught.value.why


def test_a_custom_model_without_a_head_is_refused_too() -> None:
    own = {"architectures": ["LlamaForCausalLM"], "auto_map": {"AutoModel": "modeling.LlamaModel"}}
    assert hf_model_of(LLAMA | own, HERE).model == hf_model_of(LLAMA, HERE).model
    with pytest.raises(InputError, match=r"auto_map\.AutoModel = BiLlamaModel"):
        hf_model_of(LLAMA | own | {"auto_map": {"AutoModel": "modeling.BiLlamaModel"}}, HERE)


def test_heads_cut_off_and_layers_that_are_no_attention_are_refused() -> None:
    assert hf_model_of(GPT2 | {"pruned_heads": {}}, HERE).model == hf_model_of(GPT2, HERE).model
    with pytest.raises(InputError, match="pruned_heads"):
        hf_model_of(GPT2 | {"pruned_heads": {"0": [1]}}, HERE)
    for config in (LLAMA, CASES["5.23.0 qwen3 plain"]["config"]):
        types = ["full_attention", "linear_attention", "full_attention", "full_attention"]
        with pytest.raises(InputError, match="layer_types"):
            hf_model_of(config | {"layer_types": types}, HERE)


@pytest.mark.parametrize(
    ("base", "extra"),
    [
        (GPT2, {"attention_head_type": "multiquery"}),
        (GPT2, {"multi_query": True}),
        (LLAMA, {"draft_vocab_size": 32000}),
        (LLAMA, {"num_local_experts": 8}),
        (LLAMA, {"medusa_num_heads": 3}),
        (LLAMA, {"qk_norm": True}),
        (LLAMA, {"lora_rank": 8}),
        (LLAMA, {"share_embedding": True}),
        (LLAMA, {"attn_output_gate": True}),
        (LLAMA, {"num_experts": 1}),
        (CASES["5.23.0 granitemoe plain"]["config"], {"shared_intermediate_size": 64}),
        (CASES["5.23.0 mistral head"]["config"], {"attention_bias": True}),
    ],
)
def test_a_key_of_tensors_that_the_type_does_not_have_is_refused(base: dict[str, Any], extra: dict[str, Any]) -> None:
    (key,) = extra
    with pytest.raises(InputError, match=key) as caught:
        hf_model_of(base | extra, HERE)
    assert "--safetensors" in caught.value.remedy
    for off in (None, False, 0):
        assert hf_model_of(base | {key: off}, HERE).model == hf_model_of(base, HERE).model


@pytest.mark.parametrize(
    ("case", "published", "other"),
    [
        ("gpt_oss plain", {"experts_per_token": 4}, {"experts_per_token": 2}),
        ("cohere plain", {"use_embedding_sharing": True, "use_gated_activation": True}, {"use_gated_activation": "no"}),
        ("ernie4_5_moe plain", {"moe_capacity": [64, 64], "moe_gate": "topk"}, {"moe_gate": "x"}),
        ("ernie4_5_moe plain", {"num_nextn_predict_layers": 1}, {"moe_gate": "x"}),
        ("hunyuan_v1_dense plain", {"use_cla": False, "cla_share_factor": 2}, {"use_cla": True, "cla_share_factor": 2}),
        ("hunyuan_v1_dense plain", {"num_experts": 1, "moe_topk": 1}, {"num_experts": 2, "moe_topk": 1}),
    ],
)  # fmt: skip
def test_keys_of_published_files_are_counted_only_with_values_that_name_no_tensor(
    case: str, published: dict[str, Any], other: dict[str, Any]
) -> None:
    config = CASES[f"5.23.0 {case}"]["config"]
    assert hf_model_of(config | published, HERE).model == hf_model_of(config, HERE).model
    with pytest.raises(InputError, match=r"is not counted|contradict"):
        hf_model_of(config | other, HERE)


@pytest.mark.parametrize(
    ("case", "said", "words"),
    [
        ("gpt2 plain", {"scale_attn_by_inverse_layer_idx": True}, "scores divided by another number"),
        ("olmo plain", {"clip_qkv": 8.0}, "clipped queries, keys and values"),
        ("mpt plain", {"attn_config": {"alibi": True, "clip_qkv": 6}}, "clipped queries, keys and values"),
        ("gemma3_text plain", {"query_pre_attn_scalar": 168}, "scores divided by another number"),
        ("mixtral plain", {"router_jitter_noise": 0.1, "router_z_loss_coef": 0.001}, "the z-loss of the router"),
        ("qwen3_moe plain", {"norm_topk_prob": False}, "a router whose weights do not sum to 1"),
    ],
)
def test_what_the_trainer_leaves_out_of_a_file_is_a_note(case: str, said: dict[str, Any], words: str) -> None:
    config = CASES[f"5.23.0 {case}"]["config"] | {"norm_topk_prob": True}
    head_dim = hf_model_of(config, HERE).model.head_dim
    quiet = config | ({"query_pre_attn_scalar": head_dim} if "query_pre_attn_scalar" in said else {})
    found = [{note.key: note.value for note in hf_model_of(values, HERE).notes} for values in (quiet, config | said)]
    assert words not in found[0].get("hf_simplified", "") and words in found[1]["hf_simplified"]


def test_a_key_that_nobody_reads_is_named() -> None:
    assert hf_model_of(LLAMA, HERE).notes == ()
    (note,) = hf_model_of(LLAMA | {"frobnicate": 3, "unsloth_version": "2024.9"}, HERE).notes
    assert note.value == "not read: frobnicate"


def test_other_names_of_a_key_are_those_of_transformers() -> None:
    renamed = {"n_embd": "hidden_size", "n_layer": "num_hidden_layers", "n_head": "num_attention_heads"}
    other = {renamed.get(key, key): value for key, value in GPT2.items()}
    assert hf_model_of(other, HERE).model == hf_model_of(GPT2, HERE).model
    with pytest.raises(InputError, match="n_embd = 32 and hidden_size = 64 contradict"):
        hf_model_of(GPT2 | {"hidden_size": 64}, HERE)


def test_null_is_no_value_and_has_no_default() -> None:
    mistral = CASES["5.23.0 mistral window"]["config"]
    absent = {key: value for key, value in mistral.items() if key != "sliding_window"}
    assert hf_model_of(absent, HERE).model.sliding_window == 4096  # the type's own default
    assert hf_model_of(mistral | {"sliding_window": None}, HERE).model.sliding_window is None
    starcoder = CASES["5.23.0 starcoder2 plain"]["config"]
    assert not hf_model_of(starcoder | {"tie_word_embeddings": None}, HERE).model.tied_embeddings  # null is false


@pytest.mark.parametrize("odd", ["text", True, 7, [1]])
def test_an_odd_value_beside_the_angles_of_each_kind_of_layer_is_no_crash(odd: object) -> None:
    by_layer = {"full_attention": odd, "sliding_attention": {"rope_theta": 1e4, "rope_type": "default"}}
    config = CASES["5.23.0 qwen3 plain"]["config"] | {"rope_parameters": by_layer}
    try:
        hf_model_of(config, HERE)
    except InputError as error:
        assert error.what


def test_layers_counted_from_below_the_first_are_refused() -> None:
    config = CASES["5.23.0 llama4_text plain"]["config"]
    with pytest.raises(InputError, match="moe_layers"):
        hf_model_of(config | {"moe_layers": [-1]}, HERE)
