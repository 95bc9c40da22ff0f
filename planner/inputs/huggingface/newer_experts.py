"""Mixtures of experts since 2024: Phi-3.5-MoE, Granite, GLM-4.5, ERNIE 4.5, gpt-oss, Llama 4."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from planner.counts.shape import is_kth_block
from planner.inputs.huggingface.llama import decoder, without_rotary
from planner.inputs.huggingface.newer import MULTIPLIERS
from planner.inputs.huggingface.reading import HfConfig

SIGMOID_ROUTER = "a router by sigmoids, with a correction that no gradient changes"


def phimoe(c: HfConfig) -> dict[str, Any]:
    """Phi-3.5-MoE: LayerNorm, biases of attention and of the head."""
    found = decoder(c)
    return found | c.window(found["layers"]) | {
        "norm": "layernorm",
        "norm_parameters": "gain+bias",
        "biases": c.biases(mlp=None),
        "head_bias": c.flag("lm_head_bias", False),
        "moe": _local_experts(c, found["ffn"]),
        "untrained": "a router by SparseMixer",
    }  # fmt: skip


def granitemoe(c: HfConfig) -> dict[str, Any]:
    """Granite 3 with experts."""
    found = decoder(c)
    return found | {
        "biases": c.biases(mlp=None),
        "moe": _local_experts(c, found["ffn"]),
        "untrained": MULTIPLIERS,
    }


def _local_experts(c: HfConfig, ffn: int) -> dict[str, Any]:
    return {"experts": c.size("num_local_experts"), "top_k": c.size("num_experts_per_tok"), "expert_ffn": ffn}


def glm4_moe(c: HfConfig) -> dict[str, Any]:
    """GLM-4.5, GLM-4.6: the first blocks are dense; the module for multi-token prediction is not counted."""
    found = decoder(c)
    rotary = c.rotary(found["head_dim"], "partial_rotary_factor", default=0.5)
    return found | rotary | _first_dense(c, found["layers"]) | {
        "biases": "qkv" if c.flag("attention_bias", False) else "none",
        "qk_norm": "head" if c.flag("use_qk_norm", False) else "none",
    }  # fmt: skip


def dots1(c: HfConfig) -> dict[str, Any]:
    """dots.llm1: each head of queries and keys is normed, the first blocks are dense."""
    found = decoder(c)
    window = c.changed(use_sliding_window=True).window(found["layers"])  # of the layers from max_window_layers on
    return found | window | _first_dense(c, found["layers"]) | {"biases": c.biases(mlp=None), "qk_norm": "head"}


def _first_dense(c: HfConfig, layers: int) -> dict[str, Any]:
    """Routed and shared experts after the first blocks, which are dense."""
    dense, inner = c.natural("first_k_dense_replace"), c.size("moe_intermediate_size")
    if dense >= layers:
        return {}
    moe = {
        "experts": c.size("n_routed_experts"),
        "top_k": c.size("num_experts_per_tok"),
        "expert_ffn": inner,
        "shared_ffn": c.natural("n_shared_experts") * inner,
        "first_dense_layers": dense,
    }
    return {"moe": moe, "untrained": SIGMOID_ROUTER}


def ernie4_5_moe(c: HfConfig) -> dict[str, Any]:
    """ERNIE 4.5 with text experts."""
    c.only("use_bias", False, (False,))
    found = decoder(c)
    first, step = c.natural("moe_layer_start_index"), c.size("moe_layer_interval")
    last = c.get("moe_layer_end_index", -1)
    if last not in (-1, found["layers"] - 1):
        raise c.unsupported("moe_layer_end_index", "the last layer")
    inner = c.size("moe_intermediate_size")
    moe = {
        "experts": c.size("moe_num_experts"),
        "top_k": c.size("moe_k"),
        "expert_ffn": inner,
        "shared_ffn": c.natural("moe_num_shared_experts") * inner,
        "first_dense_layers": first,
        "every": None if step == 1 else step,
    }
    tied = c.flag("tie_word_embeddings", True)
    return found | {"moe": moe, "tied_embeddings": tied, "untrained": SIGMOID_ROUTER}


def gpt_oss(c: HfConfig) -> dict[str, Any]:
    """gpt-oss: attention sinks, a window in every other block, biases everywhere, also of router and experts."""
    found = decoder(c)
    moe = _local_experts(c, found["ffn"]) | {"router_bias": True, "expert_biases": True}
    return found | c.window(found["layers"], every=2) | {
        "biases": c.biases(mlp=None),
        "attention_sinks": True,
        "moe": moe,
        "untrained": "the clamped SwiGLU of its experts",
    }  # fmt: skip


def llama4_text(c: HfConfig) -> dict[str, Any]:
    """Llama 4: a shared expert beside the routed ones, in every block or every other; chunks where there is rotary."""
    inner = c.size("intermediate_size")
    found = decoder(c) | {"ffn": c.size("intermediate_size_mlp")}
    layers, step = found["layers"], c.size("interleave_moe_layer_step", default=1)
    chosen = c.get("moe_layers", None) or list(range(step - 1, layers, step))
    if not isinstance(chosen, list) or any(type(n) is not int for n in chosen):
        raise c.unsupported("moe_layers", "a list of layers")
    every = c.step_of(chosen, layers, "moe_layers")
    rotary = without_rotary(c)
    chunk = c.size("attention_chunk_size") if c.has("attention_chunk_size") else None
    full = rotary["no_position_every"]
    types = ["full_attention" if is_kth_block(i, full) else "chunked_attention" for i in range(layers)]
    c.only("layer_types", types, (types,))
    return found | rotary | {
        "biases": c.biases(mlp=None),
        "attention_chunk": chunk,
        "full_attention_every": full if chunk else None,
        "moe": {
            "experts": c.size("num_local_experts"),
            "top_k": c.size("num_experts_per_tok"),
            "expert_ffn": inner,
            "shared_ffn": inner,
            "every": None if every == 1 else every,
        },
        "untrained": "a router by sigmoids that weighs the experts' inputs, norms without gains after rotary "
        "embedding, and scores scaled by position",
    }  # fmt: skip


NEWER_EXPERT_FAMILIES: dict[str, Callable[[HfConfig], dict[str, Any]]] = {
    f.__name__: f for f in (phimoe, granitemoe, glm4_moe, dots1, ernie4_5_moe, gpt_oss, llama4_text)
}
