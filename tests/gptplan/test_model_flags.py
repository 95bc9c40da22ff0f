"""The model's flags: what each changes, what depends on it, and one message for a bad value."""

from __future__ import annotations

import json
import struct
import tomllib
from typing import Any

import pytest

from tests.gptplan.calling import Call

RUN = ("--tokens", "10B", "--gpu", "h100-80gb")


def planned(call: Call, *words: str) -> dict[str, Any]:
    """The run.toml of these words."""
    said = call("plan", *RUN, *words)
    assert said.code == 0, said
    return tomllib.loads(said.out)


def model(call: Call, *words: str) -> dict[str, Any]:
    found = planned(call, *words)["model"]
    assert isinstance(found, dict)
    return found


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("--position rotary", {"position": "rotary"}),
        ("--position rotary --rotary-dim 16", {"position": "rotary", "rotary_dim": 16}),
        ("--position none", {"position": "none"}),
        ("--position rotary --rope-base 500000", {"rope_base": 500_000.0}),
        ("--norm-eps 1e-6", {"norm_eps": 1e-6}),
        ("--init-std 0.006", {"init_std": 0.006}),
        ("--norm rmsnorm", {"norm": "rmsnorm", "norm_parameters": "gain"}),
        ("--norm layernorm", {"norm": "layernorm", "norm_parameters": "gain+bias"}),
        ("--no-norm-bias", {"norm": "layernorm", "norm_parameters": "gain", "name": "gpt2 with norm_parameters gain"}),
        ("--norm-bias", {"norm_parameters": "gain+bias", "name": "gpt2"}),
        ("--norm rmsnorm --no-norm-bias", {"norm": "rmsnorm", "norm_parameters": "gain"}),
        ("--norm-placement both", {"norm_placement": "both"}),
        ("--qk-norm head", {"qk_norm": "head"}),
        ("--mlp relu2", {"mlp": "relu2", "ffn": 3072}),
        ("--mlp swiglu", {"mlp": "swiglu", "ffn": 2048}),
        ("--mlp swiglu --ffn 3072", {"mlp": "swiglu", "ffn": 3072}),
        ("--mlp geglu --hidden 1536", {"mlp": "geglu", "ffn": 4096}),
        ("--biases none", {"biases": "none"}),
        ("--untied", {"tied_embeddings": False}),
        ("--tied", {"tied_embeddings": True, "name": "gpt2"}),
        ("--sliding-window 256", {"sliding_window": 256}),
        ("--pad-vocab 64", {"vocab": 50304, "tokenizer_vocab": 50257}),
        ("--pad-vocab 128 --vocab 50000", {"vocab": 50048, "tokenizer_vocab": 50000}),
        ("--pad-vocab 1", {"vocab": 50257, "name": "gpt2"}),
        ("--experts 8", {"moe": {"experts": 8, "top_k": 2, "expert_ffn": 3072}}),
        ("--experts 1", {"moe": {"experts": 1, "top_k": 1, "expert_ffn": 3072}}),
        (
            "--experts 64 --top-k 6 --expert-ffn 512 --shared-ffn 1024 --mlp swiglu",
            {"moe": {"experts": 64, "top_k": 6, "expert_ffn": 512, "shared_ffn": 1024}, "ffn": 2048},
        ),
    ],
)
def test_options_over_a_preset(call: Call, words: str, expected: dict[str, Any]) -> None:
    found = model(call, "--model", "gpt2", *words.split())
    for key, value in expected.items():
        if key == "moe":
            assert {k: found["moe"][k] for k in value} == value
        else:
            assert found[key] == value, key


def test_what_nobody_typed_is_noted(call: Call) -> None:
    config = planned(call, "--model", "gpt2", "--mlp", "swiglu", "--experts", "4", "--norm", "rmsnorm")
    assumed = {a["key"]: a["value"] for a in config["provenance"]["assumptions"]}
    expected = {"ffn": "2048", "top_k": "2", "expert_ffn": "2048", "norm_parameters": "gain"}
    assert {key: assumed[key] for key in expected} == expected
    flags = planned(call, "--model", "gpt2", "--experts", "4", "--top-k", "1", "--expert-ffn", "64")
    assert not {"top_k", "expert_ffn", "ffn"} & {a["key"] for a in flags["provenance"]["assumptions"]}


def test_the_name_says_what_was_typed_and_no_more(call: Call) -> None:
    found = model(call, "--model", "gpt2", "--mlp", "swiglu", "--untied", "--pad-vocab", "64")
    assert found["name"] == "gpt2 with mlp swiglu, tied_embeddings false, vocab 50304"


def test_options_over_families_files_and_configs(call: Call) -> None:
    llama = model(call, "--family", "llama", "--layers", "4", "--hidden", "256", "--tied", "--qk-norm", "head")
    assert (llama["tied_embeddings"], llama["qk_norm"], llama["ffn"]) == (True, "head", 768)
    assert call("plan", *RUN, "--model", "mistral-7b-v0.1", "-o", "run.toml").code == 0
    again = tomllib.loads(call("plan", "--config", "run.toml", "--sliding-window", "0", "--biases", "qkv").out)["model"]
    assert "sliding_window" not in again and again["biases"] == "qkv" and again["kv_heads"] == 8


def test_a_mixture_is_changed_key_by_key(call: Call) -> None:
    found = model(call, "--model", "deepseek-v2-lite", "--top-k", "4", "--layers", "8")
    assert (found["moe"]["top_k"], found["moe"]["experts"], found["moe"]["first_dense_layers"]) == (4, 64, 1)
    assert (found["head_dim"], found["mla"]["kv_lora_rank"]) == (192, 512)
    assert model(call, "--model", "qwen1.5-moe-a2.7b", "--shared-ffn", "0")["moe"]["shared_gate"] is False


def test_another_position_takes_along_what_belongs_to_the_old_one(call: Call) -> None:
    assert "rotary_dim" not in model(call, "--model", "pythia-70m", "--position", "alibi")
    assert "no_position_every" not in model(call, "--model", "smollm3-3b", "--position", "none")
    found = model(call, "--model", "llama-3.2-1b", "--position", "learned")
    assert "rope_scaling" not in found and found["rope_base"] == 10_000.0
    kept = model(call, "--model", "llama-3.2-1b", "--rope-base", "20000")
    assert (kept["rope_base"], kept["rope_scaling"]["kind"]) == (20_000.0, "llama3")


def test_padding_of_a_model_by_its_parameters(call: Call) -> None:
    found = model(call, "--params", "125M", "--pad-vocab", "64")
    assert (found["vocab"], found["tokenizer_vocab"]) == (50304, 50257)
    assert found["nominal_parameters"] == 125_000_000


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--model gpt2 --position sinus", ("unknown --position 'sinus'", "learned")),
        ("--model llama-2-7b --norm-bias", ("--norm-bias: an RMSNorm has no bias", "--norm layernorm")),
        ("--model gpt2 --norm rms", ("unknown --norm 'rms'", "did you mean rmsnorm")),
        ("--model gpt2 --norm-placement sandwich", ("unknown --norm-placement",)),
        ("--model gpt2 --qk-norm yes", ("unknown --qk-norm", "head")),
        ("--model gpt2 --mlp gegl", ("unknown --mlp 'gegl'", "geglu")),
        ("--model gpt2 --mlp GELU", ("unknown --mlp 'GELU'", "gelu")),
        ("--model gpt2 --biases true", ("unknown --biases 'true'", "all")),
        ("--model gpt2 --rotary-dim 16", ("rotary_dim", "position")),
        ("--model gpt2 --position rotary --rotary-dim 15", ("15", "pairs")),
        ("--model gpt2 --position rotary --rotary-dim 128", ("rotary_dim (128) is above head_dim (64)",)),
        ("--model gpt2 --position rotary --rotary-dim x", ("--rotary-dim",)),
        ("--model gpt2 --rope-base 5e5", ("rope_base", "position")),
        ("--model llama-3-8b --rope-base 1", ("rope_base", "greater than 1")),
        ("--model llama-3-8b --rope-base 0", ("--rope-base",)),
        ("--model gpt2 --norm-eps 0", ("--norm-eps",)),
        ("--model gpt2 --init-std 2", ("init_std", "less than or equal to 1")),
        ("--model gpt2 --norm-eps 1", ("norm_eps", "less than 1")),
        ("--model gpt2 --norm-eps nan", ("--norm-eps",)),
        ("--model gpt2 --sliding-window -1", ("--sliding-window",)),
        ("--model gpt2 --pad-vocab 0", ("--pad-vocab",)),
        ("--model gpt2 --pad-vocab 64.5", ("--pad-vocab",)),
        ("--model gpt2 --top-k 2", ("--top-k needs --experts", "gpt2 has no experts")),
        ("--model gpt2 --shared-ffn 2", ("--shared-ffn needs --experts",)),
        ("--model gpt2 --experts 4 --top-k 5", ("top_k (5) is above experts (4)",)),
        ("--model gpt2 --experts 0", ("--experts",)),
        ("--model pythia-70m --experts 4", ("sequential residual",)),
        ("--model deepseek-v3 --qk-norm head", ("latent attention",)),
        ("--model deepseek-v3 --layers 3", ("first_dense_layers",)),
        ("--params 125M --mlp swiglu", ("--params and --mlp contradict",)),
        ("--params 125M --tied", ("--params and --tied contradict",)),
        ("--params 125M --experts 8", ("--params and --experts contradict",)),
    ],
)
def test_bad_values_are_one_message(call: Call, words: str, said: tuple[str, ...]) -> None:
    call("estimate", *RUN, *words.split()).refused(*said)


def test_a_vocabulary_off_the_tiles_is_said_with_its_mending(call: Call) -> None:
    said = json.loads(call("estimate", *RUN, "--model", "gpt2", "--json").out)
    (found,) = [f for f in said["findings"] if f["code"] == "vocab_padding"]
    assert "50,257" in found["message"]
    for words in ("--pad-vocab 64 adds 47 rows", f"{47 * 768:,} parameters", "0.029 %"):
        assert words in found["remedy"], words
    mended = json.loads(call("estimate", *RUN, "--model", "gpt2", "--pad-vocab", "64", "--json").out)
    assert "vocab_padding" not in [f["code"] for f in mended["findings"]]


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        ("124.4M", ("gpt2 (124M, +0.032 %)", "gpt-3-125m")),
        ("7B", ("falcon-7b (6.92B, -1.12 %)",)),
        ("1.1B", ("tinyllama-1.1b",)),
        ("100T", ("no preset is within a factor of two",)),
    ],
)
def test_the_nearest_presets_of_a_parameter_count(call: Call, wanted: str, words: tuple[str, ...]) -> None:
    config = planned(call, "--params", wanted, "--recipe", "mixed-bf16")
    (shape,) = [a["value"] for a in config["provenance"]["assumptions"] if a["key"] == "shape"]
    for word in words:
        assert word in shape, shape


def test_weights_are_held_against_the_model(call: Call) -> None:
    config = {"model_type": "gpt2", "n_embd": 8, "n_head": 2, "n_layer": 1, "vocab_size": 64, "n_positions": 16}
    sizes = {"wte.weight": [64, 8], "wpe.weight": [16, 8], "ln_f.weight": [8], "ln_f.bias": [8]}
    for name, shape in {
        "attn.c_attn": [8, 24],
        "attn.c_proj": [8, 8],
        "mlp.c_fc": [8, 32],
        "mlp.c_proj": [32, 8],
    }.items():
        sizes |= {f"h.0.{name}.weight": shape, f"h.0.{name}.bias": shape[1:]}
    sizes |= {f"h.0.ln_{i}.{part}": [8] for i in (1, 2) for part in ("weight", "bias")}
    header, end = {}, 0
    for name, shape in sizes.items():
        begin, end = end, end + 4 * (shape[0] * (shape[1] if len(shape) > 1 else 1))
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    with open("model.safetensors", "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text + bytes(end))
    with open("config.json", "w", encoding="utf-8") as file:
        json.dump(config, file)
    same = ("--hf-config", "config.json", "--safetensors", "model.safetensors", *RUN)
    (found,) = [f for f in json.loads(call("estimate", *same, "--json").out)["findings"] if "weights" in f["code"]]
    assert found["code"] == "weights_match" and "F32" in found["message"]
    other = call("plan", "--model", "gpt2", "--safetensors", "model.safetensors", *RUN)
    assert other.code == 0 and "weights_layers" in other.err and "weights_parameters" in other.err
    call("estimate", "--model", "gpt2", "--safetensors", "config.json", *RUN).refused("safetensors")
    call("estimate", "--model", "gpt2", "--safetensors", "nothing.safetensors", *RUN).refused("does not exist")


def test_norms_without_bias_stay_what_they_are(call: Call) -> None:
    """A model whose norms learn nothing keeps that, and with a bias it has a gain too."""
    assert model(call, "--model", "olmo-1b", "--no-norm-bias")["norm_parameters"] == "none"
    assert model(call, "--model", "olmo-1b", "--norm-bias")["norm_parameters"] == "gain+bias"
    small, whole = (
        json.loads(call("estimate", "--model", "gpt2", *RUN, flag, "--json").out)["model"]["parameters"]["total"]
        for flag in ("--no-norm-bias", "--norm-bias")
    )
    assert whole - small == 25 * 768  # 12 blocks of 2 norms, and the last
