"""Hugging Face configs: every family has the parameters that transformers builds; what is not counted is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from planner.analysis.stored_weights import weights_findings
from planner.counts.parameters import parameters_of
from planner.counts.tensors import named_tensors
from planner.errors import FileError, InputError, PlanError, UnknownNameError
from planner.inputs.draft import draft
from planner.inputs.flags import Flags
from planner.inputs.huggingface import FAMILIES, hf_model, hf_model_of, model_of_hf_values
from planner.inputs.huggingface.constants import BASE_KEYS, EPS_KEYS
from planner.inputs.huggingface.kinds import MULTIMODAL, OTHER_KINDS
from planner.inputs.huggingface.remote import REMOTE_FAMILIES
from planner.inputs.safetensors import StoredTensor

DATA = sorted((Path(__file__).parents[2] / "published" / "data").glob("hf_numels_*.json"))
CASES = {
    f"{file['transformers']} {case['case']}": case
    for file in (json.loads(path.read_text(encoding="utf-8")) for path in DATA)
    for case in file["cases"]
}
HERE = Path("config.json")
LLAMA = CASES["5.23.0 llama plain"]["config"]
GPT2 = CASES["5.23.0 gpt2 plain"]["config"]


def test_the_data_covers_every_family_and_both_generations_of_transformers() -> None:
    assert [path.stem for path in DATA] == ["hf_numels_4.46.3", "hf_numels_5.23.0"]
    assert {case["config"]["model_type"] for name, case in CASES.items() if name.startswith("5")} == set(
        FAMILIES
    ) - set(REMOTE_FAMILIES)
    old = {case["config"]["model_type"] for name, case in CASES.items() if name.startswith("4")}
    # these came after 4.46
    assert set(FAMILIES) - set(REMOTE_FAMILIES) - old == {
        "olmo2", "olmo3", "qwen3", "qwen3_moe", "smollm3", "nanochat", "deepseek_v2", "deepseek_v3", "gemma3_text",
        "cohere2", "glm4", "exaone4", "ernie4_5", "seed_oss", "helium", "arcee", "glm4_moe", "ernie4_5_moe", "gpt_oss",
        "llama4_text", "dots1", "minicpm3", "hunyuan_v1_dense",
    }  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_parameters_are_those_that_transformers_builds(name: str, tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text(json.dumps(CASES[name]["config"]), encoding="utf-8")
    found = hf_model(path)
    assert parameters_of(found.model).total == CASES[name]["numel"]
    assert sum(t.count for t in named_tensors(found.model)) == CASES[name]["numel"]
    assert {note.key for note in found.notes} <= {"hf_simplified", "balancing_rate"}


@pytest.mark.parametrize("name", [name for name in CASES if name.startswith("5")])
def test_the_model_s_own_tensors_match_it_block_by_block(name: str) -> None:
    model = model_of_hf_values(CASES[name]["config"], HERE)
    stored = tuple(StoredTensor(t.name, "BF16", t.shape) for t in named_tensors(model))
    assert [f.code for f in weights_findings(stored, model, "model.safetensors")] == ["weights_match"]
    more = (*stored, StoredTensor("blocks.0.extra.weight", "BF16", (3,)))
    assert [f.code for f in weights_findings(more, model, "x")] == ["weights_blocks", "weights_parameters"]


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("gpt_neox parallel", {"residual": "parallel", "rotary_dim": 2, "position": "rotary"}),
        ("opt plain", {"position_rows": 66, "mlp": "relu"}),
        ("bloom plain", {"position": "alibi", "embedding_norm": True}),
        ("falcon 7b", {"kv_heads": 1, "residual": "parallel-one-norm", "position": "rotary"}),
        ("falcon 40b", {"kv_heads": 2, "residual": "parallel"}),
        ("falcon rw-1b", {"position": "alibi", "residual": "sequential", "biases": "all"}),
        ("nemotron plain", {"mlp": "relu2", "rotary_dim": 4}),
        ("mistral window", {"sliding_window": 16, "full_attention_every": None}),
        ("qwen2 plain", {"sliding_window": None, "biases": "qkv"}),
        ("qwen2 window", {"sliding_window": 16}),
        ("gemma2 plain", {"sliding_window": 16, "full_attention_every": 2, "logit_softcap": 30.0}),
        ("olmo plain", {"norm": "layernorm", "norm_parameters": "none"}),
        ("smollm3 plain", {"no_position_every": 4}),
        ("smollm3 all rotary", {"no_position_every": None}),
        ("gemma3_text plain", {"sliding_window": 16, "full_attention_every": 6, "qk_norm": "head"}),
        ("olmo3 plain", {"sliding_window": 16, "full_attention_every": 4, "norm_placement": "post"}),
        ("cohere2 plain", {"full_attention_every": 4, "no_position_every": 4, "residual": "parallel-one-norm"}),
        ("cohere plus", {"qk_norm": "each-head", "biases": "attention"}),
        ("exaone4 plain", {"full_attention_every": 4, "no_position_every": 4, "norm_placement": "post"}),
        ("exaone4 small", {"sliding_window": None, "no_position_every": None}),
        ("granite mlp bias", {"biases": "mlp"}),
        ("seed_oss queries and MLP", {"biases": "qkv+mlp"}),
        ("seed_oss projection", {"biases": "proj"}),
        ("dots1 plain", {"sliding_window": None, "rotary_dim": None, "qk_norm": "head"}),
        ("minicpm3 without a latent", {"tied_embeddings": True, "moe": None}),
        ("gpt_neo plain", {"sliding_window": 256, "full_attention_every": 2, "biases": "proj+mlp"}),
        ("gpt_neo all global", {"sliding_window": None, "ffn": 80}),
        ("codegen plain", {"rotary_dim": 4, "biases": "mlp", "head_bias": True}),
        ("phi plain", {"head_bias": True, "rotary_dim": 4}),
        ("gptj tied", {"head_bias": True, "rotary_dim": None, "biases": "mlp"}),
        ("gpt_oss plain", {"attention_sinks": True, "sliding_window": 16, "full_attention_every": 2}),
        ("llama4_text plain", {"attention_chunk": 16, "full_attention_every": 4, "no_position_every": 4}),
        ("nanochat plain", {"logit_softcap": 15.0, "qk_norm": "head", "mlp": "relu2", "embedding_norm": True}),
    ],
)
def test_options_without_a_parameter_are_read_too(name: str, options: dict[str, Any]) -> None:
    found = [n for n in CASES if n.endswith(f" {name}")]
    assert found
    for case in found:
        model = model_of_hf_values(CASES[case]["config"], HERE).model_dump()
        assert {key: model[key] for key in options} == options, case


def test_the_older_names_of_keys_say_the_same() -> None:
    falcon = CASES["5.23.0 falcon 40b"]["config"]
    renamed = {"num_attention_heads": "n_head", "num_hidden_layers": "n_layer", "num_kv_heads": "n_head_kv"}
    older = {renamed.get(key, key): value for key, value in falcon.items()}
    assert model_of_hf_values(older, HERE) == model_of_hf_values(falcon, HERE)
    neox = CASES["4.46.3 gpt_neox parallel"]["config"]
    assert "rotary_pct" in neox and "rope_parameters" in CASES["5.23.0 gpt_neox parallel"]["config"]
    assert model_of_hf_values(neox | {"rotary_pct": 0.5}, HERE).rotary_dim == 4


@pytest.mark.parametrize("kind", ["gpt3", "lama", "qwen2moe", "", None, 7, ["llama"]])
def test_another_model_type_is_refused_by_name(kind: object) -> None:
    with pytest.raises(UnknownNameError) as caught:
        model_of_hf_values(LLAMA | {"model_type": kind}, HERE)
    assert "model_type" in caught.value.what and f"({len(FAMILIES)} in all)" in caught.value.remedy
    if kind == "lama":
        assert "did you mean llama" in caught.value.remedy


@pytest.mark.parametrize("kind", sorted(OTHER_KINDS))
def test_hybrids_and_encoders_are_refused_by_name_with_the_reason(kind: str) -> None:
    assert kind not in FAMILIES
    with pytest.raises(InputError, match=f"model_type {kind} is not counted") as caught:
        model_of_hf_values(LLAMA | {"model_type": kind}, HERE)
    assert caught.value.why and "decoder" in caught.value.remedy


@pytest.mark.parametrize("outer", sorted(MULTIMODAL))
def test_the_text_model_of_a_multimodal_file_is_read_alone_and_says_so(outer: str) -> None:
    values = {
        "model_type": outer,
        "architectures": [MULTIMODAL[outer]],
        "text_config": LLAMA,
        "vision_config": {"a": 1},
    }
    found = hf_model_of(values, HERE)
    assert parameters_of(found.model) == parameters_of(model_of_hf_values(LLAMA, HERE))
    assert "text model alone" in found.model.name and "vision_config" in found.notes[-1].reason
    tied = hf_model_of(
        {**values, "text_config": {**LLAMA, "tie_word_embeddings": None}, "tie_word_embeddings": True}, HERE
    )
    assert tied.model.tied_embeddings
    with pytest.raises(InputError, match="tie_word_embeddings is True, and False in text_config"):
        hf_model_of(values | {"tie_word_embeddings": True}, HERE)
    with pytest.raises(InputError, match="LlavaCustom"):
        hf_model_of(values | {"architectures": ["LlavaCustom"]}, HERE)
    with pytest.raises(InputError, match="jamba"):
        hf_model_of(values | {"text_config": LLAMA | {"model_type": "jamba"}}, HERE)
    for text in ({}, LLAMA | {"model_type": 7}, LLAMA | {"model_type": "llama9"}):
        with pytest.raises(UnknownNameError, match="text_config"):
            hf_model_of(values | {"text_config": text}, HERE)
    with pytest.raises(UnknownNameError, match=outer):
        hf_model_of(values | {"text_config": None}, HERE)


def test_what_the_trainer_leaves_out_is_noted() -> None:
    (note,) = hf_model_of(CASES["5.23.0 gemma2 plain"]["config"], HERE).notes
    assert "soft-capped attention scores" in note.value
    olmoe = CASES["5.23.0 olmoe plain"]["config"]
    assert [n.key for n in hf_model_of(olmoe, HERE).notes] == ["hf_simplified"]
    assert hf_model_of(olmoe | {"norm_topk_prob": True}, HERE).notes == ()


LLAMA_31 = {
    "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_epsilon_and_rotary_base_are_those_of_the_file(name: str) -> None:
    config = CASES[name]["config"]
    model = model_of_hf_values(config, HERE)
    assert model.norm_eps == next((config[key] for key in EPS_KEYS if key in config), 1e-5)
    if model.position == "rotary":
        rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
        places = [rope.get("full_attention", rope), config]
        stated = (p[key] for p in places for key in ("rope_theta", "rotary_emb_base") if p.get(key) is not None)
        assert model.rope_base == next(stated, 1e4)
        assert (model.rope_scaling.kind if model.rope_scaling else "default") == places[0].get("rope_type", "default")
        assert model.local_rope_base == (1e4 if config["model_type"] == "gemma3_text" else None)


@pytest.mark.parametrize("kind", sorted(set(FAMILIES) - set(REMOTE_FAMILIES)))
def test_a_file_without_them_has_those_of_transformers(kind: str) -> None:
    config = next(c["config"] for c in CASES.values() if c["config"]["model_type"] == kind)
    gone = {*EPS_KEYS, *BASE_KEYS, "rope_parameters", "rope_scaling"}
    model = model_of_hf_values({key: value for key, value in config.items() if key not in gone}, HERE)
    transformers = pytest.importorskip("transformers")
    values = transformers.models.auto.configuration_auto.CONFIG_MAPPING[kind]().to_dict()
    assert model.norm_eps == next((values[key] for key in EPS_KEYS if key in values), 1e-5)
    rope = values.get("rope_parameters") or {}
    assert model.rope_base == rope.get("full_attention", rope).get("rope_theta", 1e4)


def test_initial_weights_are_those_of_the_file_or_of_the_type() -> None:
    def drawn(kind: str, **more: Any) -> tuple[float, str]:
        config = next(c["config"] for c in CASES.values() if c["config"]["model_type"] == kind)
        kept = {key: value for key, value in config.items() if key not in ("initializer_range", "init_std")}
        model = model_of_hf_values(kept | more, HERE)
        return model.init_std, model.init_residual

    typed = {
        "gpt2": (0.02, "scaled"),
        "llama": (0.02, "same"),
        "minicpm3": (0.1, "same"),
        "deepseek_v3": (0.02, "same"),
    }
    assert {kind: drawn(kind) for kind in typed} == typed
    assert drawn("deepseek_v2", initializer_range=0.006) == (0.006, "same")
    assert drawn("opt", init_std=0.006) == (0.006, "same")
    for wrong in (0, -0.02, "0.02", True, 2):
        with pytest.raises(InputError, match="initializer_range"):
            drawn("llama", initializer_range=wrong)


def test_balancing_is_what_the_type_publishes() -> None:
    def balanced(kind: str, **more: Any) -> tuple[str, float]:
        config = next(c["config"] for c in CASES.values() if c["config"]["model_type"] == kind)
        moe = model_of_hf_values({k: v for k, v in config.items() if k != "router_aux_loss_coef"} | more, HERE).moe
        assert moe is not None
        return moe.balancing, moe.balancing_strength

    typed = {"mixtral": ("loss-pooled", 0.001), "olmoe": ("loss-pooled", 0.01), "deepseek_v3": ("bias", 0.001)}
    assert {kind: balanced(kind) for kind in typed} == typed  # defaults of transformers; DeepSeek's report
    assert balanced("mixtral", router_aux_loss_coef=0.02) == ("loss-pooled", 0.02)
    assert balanced("mixtral", router_aux_loss_coef=0) == balanced("deepseek_v2") == ("none", 0.0)
    assert balanced("deepseek_v2", aux_loss_alpha=0.001) == ("loss-sum", 0.001)
    with pytest.raises(InputError, match="router_aux_loss_coef"):
        balanced("mixtral", router_aux_loss_coef=-1)


def test_a_balancing_rate_that_the_file_does_not_state_is_an_assumption(tmp_path: Path) -> None:
    def assumed(kind: str, file: dict[str, Any], **typed: str) -> tuple[str, str] | None:
        config = next(c["config"] for c in CASES.values() if c["config"]["model_type"] == kind)
        path = tmp_path / "config.json"
        path.write_text(json.dumps({k: v for k, v in config.items() if k != "router_aux_loss_coef"} | file))
        drawn = draft(
            Flags(hf_config=str(path), steps="1000", seq="8", gpu="cpu", **typed), as_of="2026-11-21", version="0"
        )
        found = {a.key: (a.value, a.source) for a in drawn.provenance.assumptions}.get("balancing_rate")
        moe = drawn.model.moe
        assert moe is not None and (found is None or float(found[0]) == moe.balancing_strength)
        again = draft(Flags(balancing="none"), as_of="2026-11-21", version="0", base=drawn)
        assert "balancing_rate" not in {a.key for a in again.provenance.assumptions}
        return found

    for kind, said in {"mixtral": "default of mixtral in transformers", "deepseek_v3": "DeepSeek-V3"}.items():
        found = assumed(kind, {})
        assert found is not None and found[0] == "0.001" and said in found[1]
        assert assumed(kind, {}, balancing_rate="0.02") is None  # typed
        assert assumed(kind, {}, balancing="none") is None
        other = assumed(kind, {}, balancing="loss-mean")  # the file's rate was that of another method
        assert other is not None and other[0] == "0.01" and "Switch" in other[1]
    assert assumed("mixtral", {"router_aux_loss_coef": 0.001}) is None  # stated
    assert assumed("mixtral", {"router_aux_loss_coef": 0}) is None and assumed("deepseek_v2", {}) is None
    assert assumed("llama", {}, experts="4", top_k="2") is None  # nothing balances
    step = assumed("llama", {}, experts="4", top_k="2", balancing="bias")
    assert step is not None and step[0] == "0.001" and "DeepSeek-V3" in step[1]


def test_defaults_of_transformers_typed_by_hand() -> None:
    gone = {*EPS_KEYS, *BASE_KEYS, "rope_parameters", "rope_scaling"}
    for kind, typed in {
        "llama": (1e-6, 1e4),
        "mixtral": (1e-5, 1e6),
        "smollm3": (1e-6, 2e6),
        "phi3": (1e-5, 1e4),
    }.items():
        config = next(c["config"] for c in CASES.values() if c["config"]["model_type"] == kind)
        model = model_of_hf_values({key: value for key, value in config.items() if key not in gone}, HERE)
        assert (model.norm_eps, model.rope_base) == typed, kind


@pytest.mark.parametrize("key", ["rope_scaling", "rope_parameters"])
def test_scaling_of_rotary_angles(key: str) -> None:
    def scaling(values: dict[str, Any]) -> dict[str, Any]:
        theta = {"rope_theta": 5e5} if key == "rope_parameters" else {}
        plain = {k: v for k, v in LLAMA.items() if k != "rope_parameters"} | {"rope_theta": 5e5}
        found = model_of_hf_values(plain | {key: values | theta}, HERE)
        assert found.rope_base == 5e5 and found.rope_scaling is not None
        return {k: v for k, v in found.rope_scaling.model_dump().items() if v is not None}

    context = LLAMA["max_position_embeddings"]
    assert scaling(LLAMA_31) == {
        "kind": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_context": 16,
    }  # fmt: skip
    linear = scaling({"type": "linear", "factor": 2})
    assert linear == {"kind": "linear", "factor": 2.0}
    yarn = scaling({"type": "yarn", "factor": 40, "original_max_position_embeddings": 8, "mscale": 0.7})
    assert yarn == {"kind": "yarn", "factor": 40.0, "original_context": 8, "mscale": 0.7}
    factors = {"short_factor": [1, 1.5, 2, 3], "long_factor": [1, 2, 4, 8.0]}
    short = scaling({"type": "su", "original_max_position_embeddings": context // 4} | factors)
    assert short == {
        "kind": "longrope", "factor": 4.0, "original_context": context // 4,
        "short_factor": (1.0, 1.5, 2.0, 3.0), "long_factor": (1.0, 2.0, 4.0, 8.0),
    }  # fmt: skip
    two = {"full_attention": {"rope_theta": 1e6, "rope_type": "default"}, "sliding_attention": {"rope_theta": 1e4}}
    apart = model_of_hf_values(LLAMA | {"rope_parameters": two}, HERE)
    assert (apart.rope_base, apart.rope_scaling and apart.rope_scaling.kind) == (1e6, "by-layer")
    for wrong in (
        {"type": "mrope"}, {"type": ["linear"]}, LLAMA_31 | {"low_freq_factor": None},
        LLAMA_31 | {"high_freq_factor": 1.0}, {"type": "linear", "factor": 0.5}, {"type": "linear", "factor": True},
        {"type": "by-layer", "factor": 1.0}, {"type": "yarn", "factor": "4"}, {"type": "longrope"} | factors | {
            "long_factor": [1.0]}, {"type": "su", "short_factor": [1.0, 1.0, 1.0, 1.0]}, {"type": "yarn", "factor": 4,
            "truncate": 0}, {"type": "longrope"} | factors | {"short_factor": [0, 1, 1, 1]}, {"type": "yarn",
            "factor": 4.0, "beta_fast": 0.5}, {"type": "yarn", "factor": 2, "attention_factor": "1"},
    ):  # fmt: skip
        with pytest.raises(InputError):
            scaling(wrong)


REFUSED = {
    "attention_types": CASES["5.23.0 gpt_neo plain"]["config"] | {"attention_types": [[["local", "global"], 2]]},
    "attention_types = 7": CASES["5.23.0 gpt_neo plain"]["config"] | {"attention_types": 7},
    "rms_norm_eps": LLAMA | {"rms_norm_eps": 0},
    "rope_theta": LLAMA | {"rope_theta": "10000", "rope_parameters": None},
    "max_window_layers": {k: v for k, v in CASES["5.23.0 dots1 plain"]["config"].items() if k != "layer_types"}
    | {"max_window_layers": 2},
    "use_qk_norm": CASES["5.23.0 hunyuan_v1_dense plain"]["config"] | {"use_qk_norm": False},
    "n_routed_experts": CASES["5.23.0 minicpm3 plain"]["config"] | {"n_routed_experts": 8},
    "hidden_act": LLAMA | {"hidden_act": "gelu_and_more"},
    "architectures": LLAMA | {"architectures": ["LlamaForSequenceClassification"]},
    "add_cross_attention": GPT2 | {"add_cross_attention": True},
    "activation_function": GPT2 | {"activation_function": "tanh"},
    "is_encoder_decoder": GPT2 | {"is_encoder_decoder": True},
    "attention_bias": CASES["5.23.0 gpt_neox parallel"]["config"] | {"attention_bias": False},
    "word_embed_proj_dim": CASES["5.23.0 opt plain"]["config"] | {"word_embed_proj_dim": 16},
    "do_layer_norm_before": CASES["5.23.0 opt plain"]["config"] | {"do_layer_norm_before": False},
    "alibi": CASES["5.23.0 mpt plain"]["config"] | {"attn_config": {"alibi": False}},
    "attn_config": CASES["5.23.0 mpt plain"]["config"] | {"attn_config": "alibi"},
    "num_ln_in_parallel_attn": CASES["5.23.0 falcon 11b"]["config"] | {"num_ln_in_parallel_attn": 3},
    "qk_layernorm": CASES["5.23.0 stablelm plain"]["config"] | {"qk_layernorm": 1},
    "moe_layers": CASES["5.23.0 llama4_text plain"]["config"] | {"moe_layers": [0, 3]},
    "chunked_attention": CASES["5.23.0 llama4_text plain"]["config"] | {"layer_types": ["full_attention"] * 4},
    "moe_layer_end_index": CASES["5.23.0 ernie4_5_moe plain"]["config"] | {"moe_layer_end_index": 2},
    "sliding_window_pattern": {k: v for k, v in CASES["5.23.0 exaone4 plain"]["config"].items() if k != "layer_types"}
    | {"sliding_window_pattern": "LGL"},
    "no_rope_layers": CASES["5.23.0 smollm3 plain"]["config"] | {"no_rope_layers": [0, 1, 1, 1]},
    "mlp_only_layers": CASES["5.23.0 qwen2_moe plain"]["config"] | {"mlp_only_layers": [2]},
    "decoder_sparse_step": CASES["5.23.0 qwen2_moe plain"]["config"] | {"decoder_sparse_step": 0},
    "moe_layer_freq": CASES["5.23.0 deepseek_v3 plain"]["config"] | {"moe_layer_freq": 2},
    "layer_types": CASES["5.23.0 gemma2 plain"]["config"]
    | {"layer_types": ["full_attention", "sliding_attention", "sliding_attention", "full_attention"]},
    "kv_heads": {k: v for k, v in CASES["5.23.0 mistral head"]["config"].items() if "key_value" not in k},  # 8 of 4
    "num_hidden_layers": LLAMA | {"num_hidden_layers": 10**9},
}


@pytest.mark.parametrize("key", REFUSED)
def test_what_cannot_be_counted_is_refused_by_its_key(key: str) -> None:
    with pytest.raises(InputError, match=key):
        model_of_hf_values(REFUSED[key], HERE)


def config_of(kind: str) -> dict[str, Any]:
    """A tiny config of a model type; those with code of their own take Llama's keys."""
    found = (c["config"] for c in CASES.values() if c["config"]["model_type"] == kind)
    return next(found, {**{k: v for k, v in LLAMA.items() if k not in ("mlp_bias", "head_dim")}, "model_type": kind})


STRANGE = (None, "x", "", [], {}, [1], {"a": 1}, -1, 0, True, False, 1.5, float("nan"), float("inf"), 7, 10**30)


@pytest.mark.parametrize("kind", sorted(FAMILIES))
def test_strange_values_give_a_model_or_one_message(kind: str) -> None:
    config = config_of(kind)
    for key in config:
        for strange in STRANGE:
            try:
                assert parameters_of(model_of_hf_values(config | {key: strange}, HERE)).total > 0
            except PlanError as error:
                assert isinstance(error, UnknownNameError) or (error.remedy and str(HERE) in error.what)
        try:
            model_of_hf_values({k: v for k, v in config.items() if k != key}, HERE)
        except (InputError, FileError) as error:
            assert "config.json" in error.what


def test_a_file_that_is_no_config() -> None:
    for values in ([1], "gpt2", None, {}, {"hidden_size": 8}):
        with pytest.raises(FileError, match="not a Hugging Face model config"):
            model_of_hf_values(values, HERE)
