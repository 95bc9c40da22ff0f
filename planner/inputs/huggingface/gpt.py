"""GPT-2 and the families with LayerNorm or a plain MLP: GPT-NeoX, OPT, BLOOM, MPT, Falcon, StarCoder, StableLM …"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from planner.inputs.huggingface.reading import GATED_ACTIVATIONS, PLAIN_ACTIVATIONS, HfConfig

BLOOM_CONTEXT = 2048  # of its training (arXiv 2211.05100, table 3); its config may leave it out, for ALiBi has no table


def gpt2(c: HfConfig) -> dict[str, Any]:
    """GPT-2, Cerebras-GPT."""
    c.only("add_cross_attention", False, (False,))
    found = _blocks(c, "n_layer", "n_embd", "n_head")
    return found | {
        "ffn": c.size("n_inner", default=found["ffn"]),
        "context": c.size("n_positions"),
        "position": "learned",
        "mlp": c.mlp(PLAIN_ACTIVATIONS, "activation_function", default="gelu_new"),
        "biases": "all",
        "tied_embeddings": c.flag("tie_word_embeddings", True),
    }


def gpt_bigcode(c: HfConfig) -> dict[str, Any]:
    """StarCoder, SantaCoder: GPT-2 with one key-value head."""
    return gpt2(c) | ({"kv_heads": 1} if c.flag("multi_query", True) else {})


def gpt_neox(c: HfConfig) -> dict[str, Any]:
    """GPT-NeoX-20B, Pythia."""
    c.only("attention_bias", True, (True,))
    found = _decoder(c, kv_heads=c.size("num_attention_heads"))
    return found | {
        **c.rotary(found["head_dim"], "rotary_pct", default=0.25),
        "residual": "parallel" if c.flag("use_parallel_residual", True) else "sequential",
        "mlp": c.mlp(PLAIN_ACTIVATIONS, "hidden_act", default="gelu"),
        "biases": "all",
        "tied_embeddings": c.flag("tie_word_embeddings", False),
    }


def opt(c: HfConfig) -> dict[str, Any]:
    """OPT but its 350M model, whose embedding is narrower than its blocks and whose norms come after."""
    hidden, context = c.size("hidden_size"), c.size("max_position_embeddings")
    c.only("do_layer_norm_before", True, (True,))
    c.only("_remove_final_layer_norm", False, (False,))
    c.only("word_embed_proj_dim", hidden, (hidden,))
    c.only("enable_bias", True, (True,))
    c.only("layer_norm_elementwise_affine", True, (True,))
    return _decoder(c, kv_heads=c.size("num_attention_heads"), ffn=c.size("ffn_dim")) | {
        "position": "learned",
        "position_rows": context + 2,
        "mlp": c.mlp(PLAIN_ACTIVATIONS, "activation_function", default="relu"),
        "biases": "all",
        "tied_embeddings": c.flag("tie_word_embeddings", True),
    }


def bloom(c: HfConfig) -> dict[str, Any]:
    """BLOOM: ALiBi, and a norm after the embedding."""
    names = c.key("n_layer", "num_hidden_layers"), c.key("hidden_size", "n_embed")
    return _blocks(c, *names, c.key("n_head", "num_attention_heads")) | {
        "context": c.size("seq_length", default=BLOOM_CONTEXT),
        "position": "alibi",
        "embedding_norm": True,
        "mlp": "gelu",
        "biases": "all",
        "tied_embeddings": c.flag("tie_word_embeddings", True),
    }


def mpt(c: HfConfig) -> dict[str, Any]:
    """MPT as released: ALiBi, no bias anywhere; other settings are read but not built by transformers."""
    c.only("no_bias", True, (True,))
    c.only("expansion_ratio", 4, (4,))  # transformers builds no other
    attention = c.inside("attn_config")
    for key, default, allowed in (("alibi", True, True), ("qk_ln", False, False), ("prefix_lm", False, False)):
        attention.only(key, default, (allowed,))
    attention.only("attn_type", "multihead_attention", ("multihead_attention",))
    return _blocks(c, "n_layers", "d_model", "n_heads") | {
        "context": c.size("max_seq_len"),
        "position": "alibi",
        "norm_parameters": "gain",
        "mlp": "gelu",
        "biases": "none",
        "tied_embeddings": c.flag("tie_word_embeddings", True),
    }


def falcon(c: HfConfig) -> dict[str, Any]:
    """Falcon: 7B (multi-query, one norm), 40B and 180B (new architecture, two norms), 11B (one again), RW (ALiBi)."""
    heads = c.key("num_attention_heads", "n_head")
    found = _blocks(c, c.key("num_hidden_layers", "n_layer"), "hidden_size", heads)
    newer, alone = c.flag("new_decoder_architecture", False), c.flag("multi_query", True)
    kv_heads = 1 if alone else c.size(heads)
    if newer:
        kv_heads = c.size("num_kv_heads", "n_head_kv", default=c.size(heads))
    residual = "sequential"
    if c.flag("parallel_attn", True):
        c.only("num_ln_in_parallel_attn", 1, (1, 2))
        norms = c.size("num_ln_in_parallel_attn", default=2 if newer else 1)
        residual = "parallel" if norms == 2 else "parallel-one-norm"
    return found | {
        "kv_heads": kv_heads,
        "ffn": c.size("ffn_hidden_size", default=found["ffn"]),
        "context": c.size("max_position_embeddings", default=2048),
        "position": "alibi" if c.flag("alibi", False) else "rotary",
        "residual": residual,
        "mlp": c.mlp(PLAIN_ACTIVATIONS, "activation", default="gelu"),
        "biases": "all" if c.flag("bias", False) else "none",
        "tied_embeddings": c.flag("tie_word_embeddings", True),
    }


def stablelm(c: HfConfig) -> dict[str, Any]:
    """StableLM 2: LayerNorm with a gated MLP; its 12B model norms each head with a gain of its own."""
    found = _decoder(c, kv_heads=c.size("num_key_value_heads", default=c.size("num_attention_heads")))
    return found | {
        **c.rotary(found["head_dim"], "partial_rotary_factor", default=0.25),
        "qk_norm": "each-head" if c.flag("qk_layernorm", False) else "none",
        "residual": "parallel-one-norm" if c.flag("use_parallel_residual", False) else "sequential",
        "mlp": c.mlp(GATED_ACTIVATIONS, "hidden_act", default="silu"),
        "biases": "qkv" if c.flag("use_qkv_bias", False) else "none",
        "tied_embeddings": c.flag("tie_word_embeddings", False),
    }


def phi(c: HfConfig) -> dict[str, Any]:
    """Phi-1, Phi-1.5, Phi-2: one norm for attention and MLP side by side, a bias everywhere, also in the head."""
    found = _decoder(c, kv_heads=c.size("num_key_value_heads", default=c.size("num_attention_heads")))
    return found | {
        **c.rotary(found["head_dim"], "partial_rotary_factor", default=0.5),
        "qk_norm": "head" if c.flag("qk_layernorm", False) else "none",
        "residual": "parallel-one-norm",
        "mlp": c.mlp(PLAIN_ACTIVATIONS, "hidden_act", default="gelu_new"),
        "biases": "all",
        "head_bias": True,
        "tied_embeddings": c.flag("tie_word_embeddings", False),
    }


def gptj(c: HfConfig) -> dict[str, Any]:
    """GPT-J-6B: biases in the MLP and the head, none in attention."""
    found = _blocks(c, "n_layer", "n_embd", "n_head")
    rotary = {} if not c.has("rotary_dim") else {"rotary_dim": c.size("rotary_dim")}
    return found | {
        "ffn": c.size("n_inner", default=found["ffn"]),
        "context": c.size("n_positions"),
        "position": "rotary",
        **({} if rotary.get("rotary_dim") == found["head_dim"] else rotary),
        "residual": "parallel-one-norm",
        "mlp": c.mlp(PLAIN_ACTIVATIONS, "activation_function", default="gelu_new"),
        "biases": "mlp",
        "head_bias": True,
        "tied_embeddings": c.flag("tie_word_embeddings", False),
    }


def gpt_neo(c: HfConfig) -> dict[str, Any]:
    """GPT-Neo, TinyStories: learned positions, a window in every other block.

    The blocks with a window are the second, fourth, …; here they are the first, third, …, which is the same count.
    """
    found = _blocks(c, "num_layers", "hidden_size", "num_heads")
    kinds = _attention_kinds(c, found["layers"])
    window = {}
    if set(kinds) == {"global", "local"}:
        window = {"sliding_window": c.size("window_size"), "full_attention_every": 2}
    return found | window | {
        "ffn": c.size("intermediate_size", default=found["ffn"]),
        "context": c.size("max_position_embeddings"),
        "position": "learned",
        "mlp": c.mlp(PLAIN_ACTIVATIONS, "activation_function", default="gelu_new"),
        "biases": "proj+mlp",
        "tied_embeddings": c.flag("tie_word_embeddings", True),
        "untrained": "scores that are not divided by the square root of the head's width",
    }  # fmt: skip


def _attention_kinds(c: HfConfig, layers: int) -> list[str]:
    """Global or local by block, from attention_types such as [[["global", "local"], 12]]. Raises InputError."""
    alternating = ["global", "local"] * (layers // 2)
    types = c.get("attention_types", [[["global", "local"], layers // 2]])
    try:
        kinds = [kind for several, times in types for _ in range(min(times, layers + 1)) for kind in several]
    except (TypeError, ValueError):
        kinds = []
    if kinds not in (alternating, ["global"] * layers):
        raise c.unsupported("attention_types", "global and local in turn, for an even number of layers, or all global")
    return kinds


def codegen(c: HfConfig) -> dict[str, Any]:
    """CodeGen: GPT-J with one matrix for queries, keys and values."""
    return gptj(c)


def starcoder2(c: HfConfig) -> dict[str, Any]:
    """StarCoder2."""
    found = _decoder(c, kv_heads=c.size("num_key_value_heads", default=c.size("num_attention_heads")))
    return found | {
        "position": "rotary",
        "mlp": c.mlp(PLAIN_ACTIVATIONS, "hidden_act", default="gelu_pytorch_tanh"),
        "biases": "all" if c.flag("use_bias", True) else "none",
        **c.window(found["layers"]),
        "tied_embeddings": c.flag("tie_word_embeddings", True),
    }


def nemotron(c: HfConfig) -> dict[str, Any]:
    """Nemotron-4, Minitron: LayerNorm1P, squared ReLU."""
    found = _decoder(c, kv_heads=c.size("num_key_value_heads", default=c.size("num_attention_heads")))
    return found | {
        **c.rotary(found["head_dim"], "partial_rotary_factor", default=0.5),
        "mlp": c.mlp(PLAIN_ACTIVATIONS, "hidden_act", default="relu2"),
        "biases": c.biases(),
        "tied_embeddings": c.flag("tie_word_embeddings", False),
    }


def _blocks(c: HfConfig, layers: str, hidden: str, heads: str, head_dim: int | None = None) -> dict[str, Any]:
    """LayerNorm, as many keys as heads, an MLP four times as wide: by the names that a family has for its sizes."""
    return {
        "layers": c.layers(layers),
        "hidden": c.size(hidden),
        "heads": c.size(heads),
        "kv_heads": c.size(heads),
        "head_dim": head_dim or c.share(hidden, heads),
        "ffn": 4 * c.size(hidden),
        "vocab": c.size("vocab_size"),
        "norm": "layernorm",
        "norm_parameters": "gain+bias",
    }


def _decoder(c: HfConfig, kv_heads: int, ffn: int | None = None) -> dict[str, Any]:
    """What the younger names of these keys say."""
    head_dim = c.size("head_dim") if c.has("head_dim") else None
    return _blocks(c, "num_hidden_layers", "hidden_size", "num_attention_heads", head_dim) | {
        "kv_heads": kv_heads,
        "ffn": ffn or c.size("intermediate_size"),
        "context": c.size("max_position_embeddings"),
    }


GPT_FAMILIES: dict[str, Callable[[HfConfig], dict[str, Any]]] = {
    f.__name__: f
    for f in (
        gpt2,
        gpt_bigcode,
        gpt_neox,
        opt,
        bloom,
        mpt,
        falcon,
        stablelm,
        gpt_neo,
        phi,
        gptj,
        codegen,
        starcoder2,
        nemotron,
    )
}
