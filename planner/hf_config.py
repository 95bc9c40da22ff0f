"""A Hugging Face `config.json` of a GPT-2-like or Llama-like model as a `ModelConfig`; other types are refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from planner.config import ModelConfig
from planner.config_file import explain_validation, read_text
from planner.errors import FileError, InputError, UnknownNameError

KNOWN = ("gpt2", "llama")


def model_from_hf(path: Path) -> ModelConfig:
    """The model of a config.json.

    Raises FileError when it cannot be read, UnknownNameError for another model_type, InputError for an option
    that this version does not count exactly (a refusal, never a guess).
    """
    try:
        values = json.loads(read_text(path))
    except json.JSONDecodeError as error:
        raise FileError(
            f"{path} is not JSON",
            why=f"line {error.lineno}: {error.msg}",
            remedy="give the model's config.json",
        ) from None
    if not isinstance(values, dict) or "model_type" not in values:
        raise FileError(
            f"{path} is not a Hugging Face model config",
            why="it has no model_type",
            remedy="give the model's config.json",
        )
    kind = values["model_type"]
    if kind not in KNOWN:
        raise UnknownNameError("Hugging Face model_type", str(kind), KNOWN)
    try:
        fields = _gpt2(values, path) if kind == "gpt2" else _llama(values, path)
        return ModelConfig(name=f"{kind} from {path.name}", source=str(path), **fields)
    except KeyError as error:
        raise InputError(
            f"{path} has no {error.args[0]}",
            why="the shape is not whole without it",
            remedy="give the config.json that belongs to the weights",
        ) from None
    except ValidationError as error:
        raise InputError(*explain_validation(error)) from None


def _refuse_unless(values: dict[str, Any], path: Path, key: str, default: Any, allowed: tuple[Any, ...]) -> None:
    found = values.get(key, default)
    if found not in allowed:
        raise InputError(
            f"{path}: {key} = {found!r} is not supported",
            why="its parameters and activations would be counted wrongly",
            remedy=f"supported: {', '.join(map(repr, allowed))}",
        )


def _gpt2(values: dict[str, Any], path: Path) -> dict[str, Any]:
    _refuse_unless(values, path, "activation_function", "gelu_new", ("gelu_new", "gelu", "gelu_pytorch_tanh"))
    _refuse_unless(values, path, "add_cross_attention", False, (False,))
    hidden, heads = values["n_embd"], values["n_head"]
    return {
        "layers": values["n_layer"],
        "hidden": hidden,
        "heads": heads,
        "kv_heads": heads,
        "head_dim": hidden // heads,
        "ffn": values.get("n_inner") or 4 * hidden,
        "vocab": values["vocab_size"],
        "context": values["n_positions"],
        "position": "learned",
        "norm": "layernorm",
        "mlp": "gelu",
        "biases": True,
        "tied_embeddings": values.get("tie_word_embeddings", True),
    }


def _llama(values: dict[str, Any], path: Path) -> dict[str, Any]:
    _refuse_unless(values, path, "hidden_act", "silu", ("silu",))
    _refuse_unless(values, path, "attention_bias", False, (False,))
    _refuse_unless(values, path, "mlp_bias", False, (False,))
    hidden, heads = values["hidden_size"], values["num_attention_heads"]
    return {
        "layers": values["num_hidden_layers"],
        "hidden": hidden,
        "heads": heads,
        "kv_heads": values.get("num_key_value_heads") or heads,
        "head_dim": values.get("head_dim") or hidden // heads,
        "ffn": values["intermediate_size"],
        "vocab": values["vocab_size"],
        "context": values["max_position_embeddings"],
        "position": "rotary",
        "norm": "rmsnorm",
        "mlp": "swiglu",
        "biases": False,
        "tied_embeddings": values.get("tie_word_embeddings", False),
    }
