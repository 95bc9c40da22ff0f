"""A Hugging Face `config.json` as a `ModelConfig`: one small function per model_type, all others refused by name.

Keys are read under the names of transformers 4 and 5. What changes a count and has no place in `ModelConfig` is
refused, never guessed; what changes none (initialisation, dropout, rotary base and scaling, attention soft caps, token
ids, `dtype` or `torch_dtype`) is not looked at.
tests/planner/inputs/test_huggingface.py checks every family against the count of transformers itself.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from planner.config.model import ModelConfig
from planner.errors import FileError, InputError, UnknownNameError
from planner.files import read_text
from planner.inputs.huggingface import experts, gpt, llama
from planner.inputs.huggingface.reading import HfConfig
from planner.inputs.run_toml import explain_validation

FAMILIES = gpt.GPT_FAMILIES | llama.LLAMA_FAMILIES | experts.EXPERT_FAMILIES
OTHER_HEADS = ("Classification", "QuestionAnswering", "DoubleHeads", "RewardModel")


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
    return model_of_hf_values(values, path)


def model_of_hf_values(values: Any, path: Path) -> ModelConfig:
    """The model of a parsed config.json; `path` is how messages call it. Raises as `model_from_hf`."""
    if not isinstance(values, dict) or "model_type" not in values:
        raise FileError(
            f"{path} is not a Hugging Face model config",
            why="it has no model_type",
            remedy="give the model's config.json",
        )
    kind = values["model_type"]
    if not isinstance(kind, str) or kind not in FAMILIES:
        raise UnknownNameError("Hugging Face model_type", str(kind), FAMILIES)
    config = HfConfig(values, path)
    _refuse_other_heads(config)
    try:
        fields = FAMILIES[kind](config)
        return ModelConfig(name=f"{kind} from {path.name}", source=str(path), **fields)
    except ValidationError as error:
        what, why, remedy = explain_validation(error)
        raise InputError(f"{path}: {what}", why=why, remedy=remedy) from None


def _refuse_other_heads(config: HfConfig) -> None:
    named = str(config.get("architectures", ""))
    if any(part in named for part in OTHER_HEADS):
        raise config.unsupported("architectures", "a language model, with an output over the vocabulary")
    config.only("is_encoder_decoder", False, (False,))
