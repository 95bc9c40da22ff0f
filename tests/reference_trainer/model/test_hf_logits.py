"""Models that are not exported, with our weights in transformers' classes: the same logits.

Gemma 3 with its two bases, DeepSeek-V3's latent attention with yarn and its factor of the scores.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from planner.config.model import ModelConfig
from planner.inputs.huggingface import model_of_hf_values
from reference_trainer.model.gpt import GPT
from tests.reference_trainer.conftest import TRAINING

LENGTH = 24
SHAPE = {
    "vocab_size": 96, "hidden_size": 32, "num_hidden_layers": 4, "num_attention_heads": 2, "num_key_value_heads": 1,
    "intermediate_size": 48, "max_position_embeddings": 64, "head_dim": 16, "tie_word_embeddings": False,
    "pad_token_id": None, "eos_token_id": 1, "bos_token_id": 0,
}  # fmt: skip
GEMMA3 = SHAPE | {
    "model_type": "gemma3_text", "rope_theta": 500.0, "rope_local_base_freq": 20.0, "sliding_window": 15,
    "rope_scaling": {"rope_type": "linear", "factor": 3.0}, "query_pre_attn_scalar": 16, "rms_norm_eps": 1e-3,
    "layer_types": ["sliding_attention", "full_attention"] * 2,
}  # fmt: skip
DEEPSEEK = SHAPE | {
    "model_type": "deepseek_v3", "num_key_value_heads": 2, "q_lora_rank": 12, "kv_lora_rank": 10, "qk_nope_head_dim": 6,
    "qk_rope_head_dim": 8, "v_head_dim": 5, "first_k_dense_replace": 4, "rope_interleave": False, "head_dim": 8,
    "rope_theta": 100.0, "n_routed_experts": 8, "moe_intermediate_size": 24, "n_group": 2, "topk_group": 1,
    "rope_scaling": {
        "type": "yarn", "factor": 40, "original_max_position_embeddings": 16, "mscale": 0.707, "mscale_all_dim": 0.4,
    },
}  # fmt: skip


def common(weights: dict[str, Tensor], layers: int) -> dict[str, Tensor]:
    """The tensors that both classes have under the same names."""
    found = {"lm_head.weight": weights["head.weight"], "model.norm.weight": weights["norm.weight"]}
    found["model.embed_tokens.weight"] = weights["embedding.weight"]
    for i in range(layers):
        ours, theirs = f"blocks.{i}", f"model.layers.{i}"
        found[f"{theirs}.input_layernorm.weight"] = weights[f"{ours}.attention_norm.weight"]
        found[f"{theirs}.self_attn.o_proj.weight"] = weights[f"{ours}.attention.proj.weight"]
        for part in ("gate", "up", "down"):
            found[f"{theirs}.mlp.{part}_proj.weight"] = weights[f"{ours}.mlp.{part}.weight"]
    return found


def gemma3(weights: dict[str, Tensor], model: ModelConfig) -> dict[str, Tensor]:
    """Its embedding is multiplied by the root of the width, and each gain counts from 1."""
    found = common(weights, model.layers)
    found["model.embed_tokens.weight"] = found["model.embed_tokens.weight"] / model.hidden**0.5
    key = model.kv_heads * model.head_dim
    for i in range(model.layers):
        ours, theirs = f"blocks.{i}", f"model.layers.{i}"
        qkv = weights[f"{ours}.attention.qkv.weight"].split([model.heads * model.head_dim, key, key])
        found |= {f"{theirs}.self_attn.{letter}_proj.weight": rows for letter, rows in zip("qkv", qkv, strict=True)}
        for mine, other in (
            ("attention.query_norm", "self_attn.q_norm"),
            ("attention.key_norm", "self_attn.k_norm"),
            ("attention_post_norm", "post_attention_layernorm"),
            ("mlp_norm", "pre_feedforward_layernorm"),
            ("mlp_post_norm", "post_feedforward_layernorm"),
        ):
            found[f"{theirs}.{other}.weight"] = weights[f"{ours}.{mine}.weight"]
    return {name: t - 1 if "norm" in name else t for name, t in found.items()}


def deepseek(weights: dict[str, Tensor], model: ModelConfig) -> dict[str, Tensor]:
    """Latents down and up, each with its norm between."""
    found = common(weights, model.layers)
    for i in range(model.layers):
        ours, theirs = f"blocks.{i}", f"model.layers.{i}"
        found[f"{theirs}.post_attention_layernorm.weight"] = weights[f"{ours}.mlp_norm.weight"]
        for mine, other in (
            ("query_down", "q_a_proj"),
            ("query_norm", "q_a_layernorm"),
            ("query", "q_b_proj"),
            ("kv_down", "kv_a_proj_with_mqa"),
            ("kv_norm", "kv_a_layernorm"),
            ("kv_up", "kv_b_proj"),
        ):
            found[f"{theirs}.self_attn.{other}.weight"] = weights[f"{ours}.attention.{mine}.weight"]
    return found


@pytest.mark.parametrize(
    ("values", "renamed", "seen"),
    [(GEMMA3, gemma3, ("rope_scaling", "local_rope_base")), (DEEPSEEK, deepseek, ("rope_scaling",))],
    ids=["gemma3", "deepseek"],
)
def test_the_same_logits(values: dict[str, Any], renamed: Any, seen: tuple[str, ...]) -> None:
    """In fp32 on a CPU, "eager" attention: seen with transformers 5.23.0 and PyTorch 2.13.0."""
    transformers = pytest.importorskip("transformers")
    model = model_of_hf_values(values, Path("config.json"))
    training = TRAINING.model_copy(update={"seq": LENGTH})
    torch.manual_seed(3)
    gpt = GPT(model, training, torch.float32).eval()
    with torch.no_grad():
        for name, p in gpt.named_parameters():
            p.copy_(torch.randn_like(p) * 0.3 + (1.0 if "norm" in name else 0.0))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        config = transformers.AutoConfig.for_model(**{k: v for k, v in values.items()})
        config._attn_implementation = "eager"
        theirs = transformers.AutoModelForCausalLM.from_config(config).eval()
    assert not theirs.load_state_dict(renamed(gpt.state_dict(), model), strict=False).unexpected_keys
    ids = torch.randint(0, 96, (3, LENGTH), generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        ours, other = gpt.logits(ids), theirs(ids).logits
        torch.testing.assert_close(other, ours, rtol=1e-4, atol=1e-4)
        for option in seen:  # a part of the config that the logits do not show would not be checked
            plain = GPT(model.model_copy(update={option: None}), training, torch.float32).eval()
            plain.load_state_dict(gpt.state_dict())
            assert float((plain.logits(ids) - other).abs().max()) > 1e-2, option
