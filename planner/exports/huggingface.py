"""A `ModelConfig` as a Hugging Face config.json: the other way round, and only where transformers computes the same.

Eight model types are written. A combination of options that none of them has is refused, with the option that stands in
the way: a file that loads and computes something else would be worse than none.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from planner.config.model import ModelConfig
from planner.config.rope import KEYS_OF_KIND
from planner.counts.shape import has_window
from planner.errors import InputError

_PLAIN = {"gelu": "gelu_new", "relu": "relu", "relu2": "relu2"}  # its GELU is the tanh form
_GATED = {"swiglu": "silu", "geglu": "gelu_pytorch_tanh"}
Needs = dict[str, tuple[Any, ...]]  # option of ModelConfig: the values that the type can say


@dataclass(frozen=True, slots=True)
class Target:
    """A model type: what it needs, its architecture's name, and its own keys."""

    architecture: str
    needs: Needs
    keys: Callable[[ModelConfig], dict[str, Any]]


NEVER: Needs = {
    "norm_placement": ("pre",), "embedding_norm": (False,), "logit_softcap": (None,), "mla": (None,), "moe": (None,),
    "position_rows": (None,), "no_position_every": (None,), "local_rope_base": (None,),
}  # fmt: skip
WITH_LAYERNORM: Needs = NEVER | {
    "norm": ("layernorm",), "norm_parameters": ("gain+bias",), "qk_norm": ("none",), "mlp": tuple(_PLAIN),
    "biases": ("all",), "sliding_window": (None,),
}  # fmt: skip
LIKE_LLAMA: Needs = NEVER | {
    "position": ("rotary",), "rotary_dim": (None,), "norm": ("rmsnorm",), "norm_parameters": ("gain",),
    "mlp": tuple(_GATED), "residual": ("sequential",),
}  # fmt: skip
LIKE_OLMO: Needs = LIKE_LLAMA | {
    "norm_placement": ("post",), "qk_norm": ("full",), "biases": ("none", "attention"),
}  # fmt: skip


def _gpt2(m: ModelConfig) -> dict[str, Any]:
    return {
        "n_layer": m.layers, "n_embd": m.hidden, "n_head": m.heads, "n_inner": m.ffn, "n_positions": m.context,
        "activation_function": _PLAIN[m.mlp], "layer_norm_epsilon": m.norm_eps,
        "resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0,
    }  # fmt: skip


def _decoder(m: ModelConfig) -> dict[str, Any]:
    scaling = _scaling(m)
    return {
        "num_hidden_layers": m.layers, "hidden_size": m.hidden, "num_attention_heads": m.heads,
        "intermediate_size": m.ffn, "max_position_embeddings": m.context, "attention_dropout": 0.0,
        # under the names of transformers 4 and of 5
        "rope_theta": m.rope_base, "rope_parameters": {"rope_theta": m.rope_base} | scaling,
    } | ({} if m.rope_scaling is None else {"rope_scaling": scaling})  # fmt: skip


def _scaling(m: ModelConfig) -> dict[str, Any]:
    """The keys of rope_parameters that say how angles are slowed down."""
    scaling = m.rope_scaling
    if scaling is None:
        return {"rope_type": "default"}
    found: dict[str, Any] = {"rope_type": scaling.kind, "factor": scaling.factor}
    for key in KEYS_OF_KIND:
        value = getattr(scaling, key)
        if value is not None:
            found[key] = list(value) if isinstance(value, tuple) else value
    if scaling.kind in ("llama3", "yarn", "longrope"):
        found["original_max_position_embeddings"] = scaling.original_context or m.context
    return found


def _gpt_neox(m: ModelConfig) -> dict[str, Any]:
    share = m.rope_dim / m.head_dim
    keys = _decoder(m)
    keys["rope_parameters"] |= {"partial_rotary_factor": share}
    return keys | {
        "rotary_pct": share, "rotary_emb_base": m.rope_base, "layer_norm_eps": m.norm_eps, "hidden_act": _PLAIN[m.mlp],
        "use_parallel_residual": m.residual == "parallel", "attention_bias": True, "hidden_dropout": 0.0,
    }  # fmt: skip


def _llama(m: ModelConfig) -> dict[str, Any]:
    return _decoder(m) | {
        "num_key_value_heads": m.kv_heads, "head_dim": m.head_dim, "hidden_act": _GATED[m.mlp],
        "rms_norm_eps": m.norm_eps, "attention_bias": m.biases in ("attention", "all"), "mlp_bias": m.biases == "all",
    }  # fmt: skip


def _mistral(m: ModelConfig) -> dict[str, Any]:
    kept = {key: value for key, value in _llama(m).items() if not key.endswith("_bias")}
    return kept | {"sliding_window": m.sliding_window}


def _qwen2(m: ModelConfig) -> dict[str, Any]:
    kept = {key: value for key, value in _llama(m).items() if not key.endswith("_bias")}
    return kept | _window_by_layer(m)


def _qwen3(m: ModelConfig) -> dict[str, Any]:
    return _qwen2(m) | {"attention_bias": m.biases == "attention"}


def _olmo2(m: ModelConfig) -> dict[str, Any]:
    """Like Llama, but heads share out the width (`SQUARE`)."""
    return {key: value for key, value in _llama(m).items() if key not in ("mlp_bias", "head_dim")}


def _olmo3(m: ModelConfig) -> dict[str, Any]:
    """Blocks with a window have angles of their own, without scaling."""
    window = _window_by_layer(m)
    found = _olmo2(m) | {key: window[key] for key in ("sliding_window", "layer_types")}
    full = found.pop("rope_parameters")
    local = full if m.local_rope_base is None else {"rope_type": "default", "rope_theta": m.local_rope_base}
    return found | {"rope_parameters": {"full_attention": full, "sliding_attention": local}}


def _window_by_layer(m: ModelConfig) -> dict[str, Any]:
    if m.sliding_window is None:
        return {"use_sliding_window": False, "sliding_window": None}
    types = ["sliding_attention" if has_window(m, block) else "full_attention" for block in range(m.layers)]
    return {
        "use_sliding_window": True,
        "sliding_window": m.sliding_window,
        "max_window_layers": 0,
        "layer_types": types,
    }


TARGETS: dict[str, Target] = {
    "gpt2": Target(
        "GPT2LMHeadModel",
        WITH_LAYERNORM | {"position": ("learned",), "residual": ("sequential",)},
        _gpt2,
    ),
    "gpt_neox": Target(
        "GPTNeoXForCausalLM",
        WITH_LAYERNORM | {"position": ("rotary",), "residual": ("sequential", "parallel")},
        _gpt_neox,
    ),
    "llama": Target(
        "LlamaForCausalLM",
        LIKE_LLAMA | {"qk_norm": ("none",), "biases": ("none", "attention", "all"), "sliding_window": (None,)},
        _llama,
    ),
    "mistral": Target(
        "MistralForCausalLM",
        LIKE_LLAMA | {"qk_norm": ("none",), "biases": ("none",), "full_attention_every": (None,)},
        _mistral,
    ),
    "qwen2": Target("Qwen2ForCausalLM", LIKE_LLAMA | {"qk_norm": ("none",), "biases": ("qkv",)}, _qwen2),
    "qwen3": Target("Qwen3ForCausalLM", LIKE_LLAMA | {"qk_norm": ("head",), "biases": ("none", "attention")}, _qwen3),
    "olmo2": Target("Olmo2ForCausalLM", LIKE_OLMO | {"sliding_window": (None,)}, _olmo2),
    "olmo3": Target("Olmo3ForCausalLM", {k: v for k, v in LIKE_OLMO.items() if k != "local_rope_base"}, _olmo3),
}
SQUARE = ("gpt2", "gpt_neox", "olmo2", "olmo3")  # their heads share out the width
UNGROUPED = ("gpt2", "gpt_neox")  # each head has keys of its own


def obstacles(m: ModelConfig, kind: str) -> list[str]:
    """The options of a model that a model type cannot say; none where it computes the same."""
    found = [
        f"model.{option} = {getattr(m, option)} (it has {' or '.join(map(str, known))})"
        for option, known in TARGETS[kind].needs.items()
        if getattr(m, option) not in known
    ]
    if kind in UNGROUPED and m.kv_heads != m.heads:
        found.append(f"model.kv_heads = {m.kv_heads} (it has as many as heads, {m.heads})")
    if kind in SQUARE and m.heads * m.head_dim != m.hidden:
        found.append(f"model.head_dim = {m.head_dim} (its {m.heads} heads share out the width of {m.hidden})")
    if m.rope_scaling is not None and m.rope_scaling.untrained is not None:
        found.append(f"model.rope_scaling.kind = {m.rope_scaling.kind} (not written: {m.rope_scaling.untrained})")
    if kind == "gpt_neox" and int(m.head_dim * (m.rope_dim / m.head_dim)) != m.rope_dim:
        found.append(f"model.rotary_dim = {m.rope_dim} (no share of {m.head_dim} rounds down to it)")
    return found


def hf_type(m: ModelConfig) -> str:
    """The model type that computes what `m` does, the plainest first.

    Raises InputError where none does: it names the nearest type and the options that stand in the way.
    """
    found = {kind: obstacles(m, kind) for kind in TARGETS}
    fewest = min(map(len, found.values()))
    nearest = [kind for kind, them in found.items() if len(them) == fewest]
    if fewest:
        raise InputError(
            f"no Hugging Face model type that we write has all options of {m.name}",
            why="in the way: " + "; ".join(f"for {kind} {', '.join(found[kind])}" for kind in nearest),
            remedy=f"the checkpoint itself stays readable with safetensors; written are {', '.join(TARGETS)}",
        )
    return nearest[0]


def hf_values(m: ModelConfig, dtype: str) -> dict[str, Any]:
    """The config.json of `m`, with weights of that type (float32, bfloat16). Raises InputError as `hf_type`.

    Rows that pad the vocabulary are rows like others there. No tokens are named: the tokenizer is the user's.
    """
    kind = hf_type(m)
    return {
        "model_type": kind,
        "architectures": [TARGETS[kind].architecture],
        "vocab_size": m.vocab,
        "tie_word_embeddings": m.tied_embeddings,
        "initializer_range": m.init_std,
        "torch_dtype": dtype,
        "bos_token_id": None,
        "eos_token_id": None,
        "pad_token_id": None,
    } | TARGETS[kind].keys(m)
