"""Dense decoders since 2024 that differ from Llama in one or two ways: Gemma 3, OLMo 3, Granite, Cohere, GLM-4 …"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from planner.inputs.huggingface.llama import decoder, gemma, olmo2, softcap
from planner.inputs.huggingface.reading import PLAIN_ACTIVATIONS, HfConfig


def gemma3_text(c: HfConfig) -> dict[str, Any]:
    """Gemma 3 (and the language model of its multimodal files): norms of queries and keys, every 6th block full."""
    return gemma(c) | {
        "norm_placement": "both",
        "qk_norm": "head",
        **c.window(c.layers("num_hidden_layers"), every=c.pattern(6)),
        "logit_softcap": softcap(c),
    }


def olmo3(c: HfConfig) -> dict[str, Any]:
    """OLMo 3: OLMo 2 with a sliding window in three of four blocks."""
    return olmo2(c) | c.window(c.layers("num_hidden_layers"), every=4)


def granite(c: HfConfig) -> dict[str, Any]:
    """Granite 3: Llama with four multipliers."""
    return decoder(c) | {"biases": c.biases(), "untrained": MULTIPLIERS}


MULTIPLIERS = "the multipliers of embeddings, scores, residuals and logits"


def cohere(c: HfConfig) -> dict[str, Any]:
    """Command R: one LayerNorm for attention and MLP side by side; Command R+ norms each head, with its own gain."""
    return _cohere(c) | {"qk_norm": "each-head" if c.flag("use_qk_norm", False) else "none"}


def cohere2(c: HfConfig) -> dict[str, Any]:
    """Command R7B, Command A: every 4th block sees all keys, and has no rotary embedding."""
    found = _cohere(c) | c.window(c.layers("num_hidden_layers"), every=c.pattern(4))
    return found | ({"no_position_every": found["full_attention_every"]} if "full_attention_every" in found else {})


def _cohere(c: HfConfig) -> dict[str, Any]:
    return decoder(c) | {
        "norm": "layernorm",
        "residual": "parallel-one-norm",
        "biases": c.biases(mlp=None),
        "tied_embeddings": c.flag("tie_word_embeddings", True),
        "untrained": None if c.get("logit_scale", 1.0) == 1.0 else "a factor of the logits",
    }


def glm(c: HfConfig) -> dict[str, Any]:
    """GLM-4-9B, GLM-Edge: half of each head is turned."""
    found = decoder(c)
    rotary = c.rotary(found["head_dim"], "partial_rotary_factor", default=0.5)
    return found | rotary | {"biases": "qkv" if c.flag("attention_bias", False) else "none"}


def glm4(c: HfConfig) -> dict[str, Any]:
    """GLM-4-0414: GLM with norms before and after each sub-layer."""
    return glm(c) | {"norm_placement": "both"}


def exaone4(c: HfConfig) -> dict[str, Any]:
    """EXAONE 4.0: norms on the outputs; with a window, the blocks that see all keys have no rotary embedding."""
    found = decoder(c) | {"norm_placement": "post", "qk_norm": "head"}
    window = c.window(found["layers"], every=c.pattern(4))
    if window:
        window["no_position_every"] = window.get("full_attention_every")
    return found | window


def ernie4_5(c: HfConfig) -> dict[str, Any]:
    """ERNIE 4.5, the dense one."""
    return decoder(c) | {
        "biases": c.biases("use_bias", "use_bias", "use_bias"),
        "tied_embeddings": c.flag("tie_word_embeddings", True),
    }


def seed_oss(c: HfConfig) -> dict[str, Any]:
    """Seed-OSS-36B: biases of q, k and v."""
    return decoder(c) | {"biases": c.biases(proj="attention_out_bias")}


def helium(c: HfConfig) -> dict[str, Any]:
    """Helium-1."""
    return decoder(c) | {"biases": c.biases(proj="-")}


def arcee(c: HfConfig) -> dict[str, Any]:
    """AFM-4.5B: squared ReLU without a gate."""
    found = decoder(c.changed(hidden_act="silu"))
    return found | {"biases": c.biases(), "mlp": c.mlp(PLAIN_ACTIVATIONS, "hidden_act", default="relu2")}


def hunyuan_v1_dense(c: HfConfig) -> dict[str, Any]:
    """Hunyuan 0.5B to 7B of 2025: queries and keys are normed after rotary embedding."""
    c.only("use_qk_norm", True, (True,))
    c.only("mlp_bias", False, (False,))
    late = "norms of queries and keys after rotary embedding"
    return decoder(c) | {"biases": c.biases(mlp=None), "qk_norm": "head", "untrained": late}


NEWER_FAMILIES: dict[str, Callable[[HfConfig], dict[str, Any]]] = {
    f.__name__: f
    for f in (
        gemma3_text,
        olmo3,
        granite,
        cohere,
        cohere2,
        glm,
        glm4,
        exaone4,
        ernie4_5,
        seed_oss,
        helium,
        arcee,
        hunyuan_v1_dense,
    )
}
