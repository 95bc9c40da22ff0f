"""A Hugging Face `config.json` of a GPT-2-like or Llama-like model as a `ModelConfig`; other types are refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from planner.config_file import explain_validation, read_text
from planner.errors import FileError, InputError, UnknownNameError
from planner.model_config import ModelConfig

KNOWN = ("gpt2", "llama")


def model_from_hf(path: Path) -> ModelConfig:
    """The model of a config.json.

    Raises FileError when it cannot be read, UnknownNameError for another model_type, InputError for an option
    that this version does not count exactly (a refusal, never a guess).
    """
    try:
        values = json.loads(read_text(path))
    except (ValueError, RecursionError) as error:  # a number of 5,000 digits, arrays nested 1,000 deep
        why = f"line {error.lineno}: {error.msg}" if isinstance(error, json.JSONDecodeError) else str(error)
        raise FileError(f"{path} is not JSON", why=why, remedy="give the model's config.json") from None
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
        what, why, remedy = explain_validation(error)
        raise InputError(f"{path}: {what}", why=why, remedy=remedy) from None


def _head_width(values: dict[str, Any], path: Path, width: str, heads: str) -> int:
    """Width over heads, both checked first because they are divided before the model is validated."""
    for key in (width, heads):
        if type(values[key]) is not int or values[key] < 1:
            raise InputError(
                f"{path}: {key} = {repr(values[key])[:60]} is not a positive whole number",
                why="the shape follows from it",
                remedy="give the config.json that belongs to the weights",
            )
    if values[width] % values[heads]:
        raise InputError(
            f"{path}: {width} = {values[width]} is not divisible by {heads} = {values[heads]}",
            why="the width is shared out evenly among the heads",
            remedy="change one of the two",
        )
    return int(values[width] // values[heads])


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
    hidden, heads, head_dim = values["n_embd"], values["n_head"], _head_width(values, path, "n_embd", "n_head")
    return {
        "layers": values["n_layer"],
        "hidden": hidden,
        "heads": heads,
        "kv_heads": heads,
        "head_dim": head_dim,
        "ffn": values.get("n_inner") or 4 * hidden,
        "vocab": values["vocab_size"],
        "context": values["n_positions"],
        "position": "learned",
        "norm": "layernorm",
        "norm_parameters": "gain+bias",
        "mlp": "gelu",
        "biases": "all",
        "tied_embeddings": values.get("tie_word_embeddings", True),
    }


def _llama(values: dict[str, Any], path: Path) -> dict[str, Any]:
    _refuse_unless(values, path, "hidden_act", "silu", ("silu",))
    _refuse_unless(values, path, "attention_bias", False, (False,))
    _refuse_unless(values, path, "mlp_bias", False, (False,))
    hidden, heads = values["hidden_size"], values["num_attention_heads"]
    head_dim = values.get("head_dim") or _head_width(values, path, "hidden_size", "num_attention_heads")
    return {
        "layers": values["num_hidden_layers"],
        "hidden": hidden,
        "heads": heads,
        "kv_heads": values.get("num_key_value_heads") or heads,
        "head_dim": head_dim,
        "ffn": values["intermediate_size"],
        "vocab": values["vocab_size"],
        "context": values["max_position_embeddings"],
        "position": "rotary",
        "norm": "rmsnorm",
        "norm_parameters": "gain",
        "mlp": "swiglu",
        "biases": "none",
        "tied_embeddings": values.get("tie_word_embeddings", False),
    }
