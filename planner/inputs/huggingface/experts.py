"""Mixtures of experts: Mixtral, Qwen-MoE, OLMoE, DeepSeek-V2 and V3."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from planner.inputs.huggingface.llama import decoder, qwen_window
from planner.inputs.huggingface.newer import MULTIPLIERS
from planner.inputs.huggingface.reading import HfConfig

_EXPERT_KEYS = ("num_experts", "num_local_experts")  # transformers 5 writes Qwen's as Mixtral's


def mixtral(c: HfConfig) -> dict[str, Any]:
    """Mixtral 8x7B and 8x22B."""
    found = decoder(c)
    moe = {"experts": c.size(*_EXPERT_KEYS), "top_k": c.size("num_experts_per_tok"), "expert_ffn": found["ffn"]}
    return found | c.window(found["layers"]) | {"moe": moe}


def qwen2_moe(c: HfConfig) -> dict[str, Any]:
    """Qwen1.5-MoE, Qwen2-57B-A14B: one shared expert with a gate."""
    shared = {"shared_ffn": c.size("shared_expert_intermediate_size"), "shared_gate": True}
    biases = "qkv" if c.flag("qkv_bias", True) else "none"
    return decoder(c) | {"biases": biases, "moe": _qwen_experts(c) | shared} | qwen_window(c)


def qwen3_moe(c: HfConfig) -> dict[str, Any]:
    """Qwen3-30B-A3B, Qwen3-235B-A22B."""
    found = decoder(c) | qwen_window(c)
    return found | {"biases": c.biases(), "qk_norm": "head", "moe": _qwen_experts(c)}


def _qwen_experts(c: HfConfig) -> dict[str, Any]:
    step = c.size("decoder_sparse_step", default=1)
    dense = c.get("mlp_only_layers", [])
    if not isinstance(dense, list) or dense != list(range(len(dense))):
        raise c.unsupported("mlp_only_layers", "the first layers of the model, or none")
    return {
        "experts": c.size(*_EXPERT_KEYS),
        "top_k": c.size("num_experts_per_tok"),
        "expert_ffn": c.size("moe_intermediate_size"),
        "first_dense_layers": len(dense),
        "every": None if step == 1 else step,
    }


def olmoe(c: HfConfig) -> dict[str, Any]:
    """OLMoE: whole queries and keys are normed."""
    found = decoder(c)
    moe = {"experts": c.size(*_EXPERT_KEYS), "top_k": c.size("num_experts_per_tok"), "expert_ffn": found["ffn"]}
    return found | {"biases": c.biases(), "qk_norm": "full", "moe": moe}


def deepseek(c: HfConfig) -> dict[str, Any]:
    """DeepSeek-V2 and V3: latent attention; the first blocks are dense.

    The router's biases of V3 (a buffer that no gradient changes) and the module for multi-token prediction, which
    transformers does not build, are not counted.
    """
    c.only("attention_bias", False, (False,))
    c.only("mlp_bias", False, (False,))
    c.only("moe_layer_freq", 1, (1,))
    layers, heads = c.layers("num_hidden_layers"), c.size("num_attention_heads")
    c.only("num_key_value_heads", heads, (heads,))
    nope, rope = c.size("qk_nope_head_dim"), c.size("qk_rope_head_dim")
    mla = {
        "q_lora_rank": c.size("q_lora_rank") if c.has("q_lora_rank") else None,
        "kv_lora_rank": c.size("kv_lora_rank"),
        "qk_nope_head_dim": nope,
        "qk_rope_head_dim": rope,
        "v_head_dim": c.size("v_head_dim"),
    }
    same = c.changed(head_dim=nope + rope, rope_parameters=None)
    found = decoder(same) | {"mla": mla}
    dense = c.get("first_k_dense_replace", 0)
    if type(dense) is not int or dense < 0:
        raise c.unsupported("first_k_dense_replace", "a whole number of layers")
    if not c.has("n_routed_experts") or dense >= layers:
        return found
    inner = c.size("moe_intermediate_size")
    shared = 0 if c.get("n_shared_experts", 0) == 0 else c.size("n_shared_experts")
    moe = {
        "experts": c.size("n_routed_experts"),
        "top_k": c.size("num_experts_per_tok"),
        "expert_ffn": inner,
        "shared_ffn": shared * inner,
        "first_dense_layers": dense,
    }
    return found | {"moe": moe}


def minicpm3(c: HfConfig) -> dict[str, Any]:
    """MiniCPM3-4B: latent attention with an ordinary MLP, and MiniCPM's multipliers."""
    c.only("n_routed_experts", None, (None,))
    tied = c.flag("tie_word_embeddings", True)
    return deepseek(c) | {"tied_embeddings": tied, "untrained": MULTIPLIERS}


EXPERT_FAMILIES: dict[str, Callable[[HfConfig], dict[str, Any]]] = {
    "mixtral": mixtral,
    "qwen2_moe": qwen2_moe,
    "qwen3_moe": qwen3_moe,
    "olmoe": olmoe,
    "deepseek_v2": deepseek,
    "deepseek_v3": deepseek,
    "minicpm3": minicpm3,
}
