"""Llama and its dense relatives: Mistral, Qwen, Gemma, OLMo, Phi-3, SmolLM3, nanochat; others are in `newer.py`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from planner.inputs.huggingface.reading import GATED_ACTIVATIONS, PLAIN_ACTIVATIONS, HfConfig


def decoder(c: HfConfig) -> dict[str, Any]:
    """A Llama block by its usual keys; each family says what differs.

    num_key_value_heads null, and without a default of the type: as many as heads. head_dim likewise: the width over
    the heads.
    """
    heads = c.size("num_attention_heads")
    head_dim = c.size("head_dim") if c.has("head_dim") else c.share("hidden_size", "num_attention_heads")
    return {
        "layers": c.layers("num_hidden_layers"),
        "hidden": c.size("hidden_size"),
        "heads": heads,
        "kv_heads": c.size("num_key_value_heads", default=heads),
        "head_dim": head_dim,
        "ffn": c.size("intermediate_size"),
        "vocab": c.size("vocab_size"),
        "context": c.size("max_position_embeddings", "max_sequence_length"),
        **c.rotary(head_dim),
        "norm": "rmsnorm",
        "norm_parameters": "gain",
        "mlp": c.mlp(GATED_ACTIVATIONS, "hidden_act", default="silu"),
        "biases": "none",
        "tied_embeddings": c.flag("tie_word_embeddings", False),
    }


def llama(c: HfConfig) -> dict[str, Any]:
    """Llama 1 to 3, TinyLlama, SmolLM2, DeepSeek-LLM, Yi."""
    return decoder(c) | {"biases": c.biases()}


def mistral(c: HfConfig) -> dict[str, Any]:
    """Mistral."""
    return decoder(c) | c.window(c.layers("num_hidden_layers"))


def qwen2(c: HfConfig) -> dict[str, Any]:
    """Qwen1.5, Qwen2, Qwen2.5."""
    return decoder(c) | {"biases": "qkv"} | qwen_window(c)


def qwen3(c: HfConfig) -> dict[str, Any]:
    """Qwen3."""
    return decoder(c) | {"biases": c.biases(), "qk_norm": "head"} | qwen_window(c)


def qwen_window(c: HfConfig) -> dict[str, Any]:
    """A window only where the file switches it on: its size is always there."""
    return c.window(c.layers("num_hidden_layers")) if c.flag("use_sliding_window", False) else {}


def gemma(c: HfConfig) -> dict[str, Any]:
    """Gemma."""
    c.only("use_bidirectional_attention", False, (False,))
    return decoder(c) | {
        "mlp": c.mlp(GATED_ACTIVATIONS, "hidden_activation", "hidden_act", default="gelu_pytorch_tanh"),
        "biases": c.biases(),
        "tied_embeddings": c.flag("tie_word_embeddings", True),
    }


def gemma2(c: HfConfig) -> dict[str, Any]:
    """Gemma 2: norms before and after, every other block sees a window only."""
    return gemma(c) | {
        "norm_placement": "both",
        **c.window(c.layers("num_hidden_layers"), every=2),
        "logit_softcap": softcap(c),
    }


def softcap(c: HfConfig) -> float | None:
    found = c.get("final_logit_softcapping", None)
    if found is not None and (isinstance(found, bool) or not isinstance(found, int | float) or not found > 0):
        raise c.unsupported("final_logit_softcapping", "a positive number")
    return None if found is None else float(found)


def olmo(c: HfConfig) -> dict[str, Any]:
    """OLMo: LayerNorm without parameters."""
    changed = {"norm": "layernorm", "norm_parameters": "none", "biases": c.biases()}
    return decoder(c) | changed


def olmo2(c: HfConfig) -> dict[str, Any]:
    """OLMo 2: norms on the outputs of the sub-layers, and on whole queries and keys."""
    changed = {"norm_placement": "post", "qk_norm": "full", "biases": c.biases()}
    return decoder(c) | changed


def phi3(c: HfConfig) -> dict[str, Any]:
    """Phi-3, Phi-3.5, Phi-4; their fused projections hold what ours hold apart."""
    found = decoder(c)
    return found | c.rotary(found["head_dim"], "partial_rotary_factor") | c.window(found["layers"])


def smollm3(c: HfConfig) -> dict[str, Any]:
    """SmolLM3: every k-th block goes without rotary embedding."""
    tied = c.flag("tie_word_embeddings", True)
    changed = without_rotary(c) | {"biases": c.biases(), "tied_embeddings": tied}
    return decoder(c) | changed | qwen_window(c)


def without_rotary(c: HfConfig) -> dict[str, Any]:
    """The blocks without rotary embedding, by no_rope_layers: 1 where there is one, in spite of the name."""
    layers, step = c.layers("num_hidden_layers"), c.size("no_rope_layer_interval", default=4)
    found = c.get("no_rope_layers", []) or [int((i + 1) % step != 0) for i in range(layers)]
    if not isinstance(found, list) or len(found) != layers or any(type(n) is not int or n not in (0, 1) for n in found):
        raise c.unsupported("no_rope_layers", "a 0 or 1 for each layer")
    return {"no_position_every": c.step_of([i for i, there in enumerate(found) if not there], layers, "no_rope_layers")}


def nanochat(c: HfConfig) -> dict[str, Any]:
    """nanochat of October 2025: norms without parameters, also after the embedding, squared ReLU."""
    return decoder(c.changed(hidden_act="silu")) | {
        "norm_parameters": "none",
        "qk_norm": "head",
        "embedding_norm": True,
        "mlp": c.mlp(PLAIN_ACTIVATIONS, "hidden_act", default="relu2"),
        "biases": c.biases(),
        "logit_softcap": softcap(c),
    }


LLAMA_FAMILIES: dict[str, Callable[[HfConfig], dict[str, Any]]] = {
    f.__name__: f for f in (llama, mistral, qwen2, qwen3, gemma, gemma2, olmo, olmo2, phi3, smollm3, nanochat)
}
