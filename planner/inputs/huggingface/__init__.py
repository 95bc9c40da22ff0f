"""A Hugging Face `config.json` as a `ModelConfig`: one small function per model_type, all others refused by name.

Keys are read under the names of transformers 4 and 5; an absent key has the model type's own default there. What
changes a count and has no place in `ModelConfig` is refused, never guessed, as is a class that is not the type's own
(`classes.py`). Of what changes none, epsilon of the norms, rotary base and scaling are read (`constants.py`), what else
the trainer leaves out is noted (`simplified.py`); dropout and token ids are not looked at.
tests/planner/inputs/test_huggingface.py checks every family against the count of transformers itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from planner.config.model import ModelConfig
from planner.errors import FileError, InputError
from planner.files import read_text
from planner.inputs.huggingface import experts, gpt, llama, newer, newer_experts, remote
from planner.inputs.huggingface.balancing import assumed_rate, balancing
from planner.inputs.huggingface.classes import (
    PUBLISHED_NAMES,
    canonical,
    refuse_other_class,
    refuse_other_tensors,
    unusual_keys,
)
from planner.inputs.huggingface.constants import constants
from planner.inputs.huggingface.initialisation import initialisation
from planner.inputs.huggingface.kinds import refuse_kind, text_values
from planner.inputs.huggingface.reading import HfConfig
from planner.inputs.huggingface.simplified import left_out_of
from planner.inputs.run_toml import explain_validation
from planner.json_input import parsed_json
from planner.rules import rules

FAMILIES = (
    gpt.GPT_FAMILIES
    | llama.LLAMA_FAMILIES
    | newer.NEWER_FAMILIES
    | experts.EXPERT_FAMILIES
    | newer_experts.NEWER_EXPERT_FAMILIES
    | remote.REMOTE_FAMILIES
)
NAMES_SHOWN = 8  # keys in a note


@dataclass(frozen=True, slots=True)
class Note:
    """Something about the file that a count rests on: what it concerns, what was taken, and why."""

    key: str
    value: str
    reason: str


@dataclass(frozen=True, slots=True)
class HfModel:
    """The model of a config.json, and notes about what the file does not say."""

    model: ModelConfig
    notes: tuple[Note, ...]


def hf_model(path: Path) -> HfModel:
    """The model of a config.json, with notes.

    Raises FileError when it cannot be read, UnknownNameError for another model_type, InputError for an option or a
    class that this version does not count exactly (a refusal, never a guess).
    """
    try:
        # transformers writes Infinity, such as in time_step_limit; where it would be counted, the key is refused
        values = parsed_json(read_text(path), allow_nonfinite=True)
    except ValueError as error:
        raise FileError(f"{path} is not JSON", why=str(error), remedy="give the model's config.json") from None
    return hf_model_of(values, path)


def model_from_hf(path: Path) -> ModelConfig:
    """The model of a config.json. Raises as `hf_model`."""
    return hf_model(path).model


def model_of_hf_values(values: Any, path: Path) -> ModelConfig:
    """The model of a parsed config.json. Raises as `hf_model`."""
    return hf_model_of(values, path).model


def hf_model_of(values: Any, path: Path) -> HfModel:
    """The model of a parsed config.json, with notes; `path` is how messages call it. Raises as `hf_model`."""
    if not isinstance(values, dict) or "model_type" not in values:
        raise FileError(
            f"{path} is not a Hugging Face model config",
            why="it has no model_type",
            remedy="give the model's config.json",
        )
    outer, kind = values, values["model_type"]
    values, left_out = text_values(values, path) if isinstance(kind, str) and kind not in FAMILIES else (values, ())
    kind = values.get("model_type")
    if not isinstance(kind, str) or kind not in FAMILIES:
        raise refuse_kind(kind, outer["model_type"], FAMILIES, path)
    known = known_keys(kind)
    config = canonical(HfConfig(values, path, known["defaults"]), known["names"])
    config.only("is_encoder_decoder", False, (False,))
    try:
        fields = FAMILIES[kind](config)
        windowed = fields.get("sliding_window") is not None
        fields |= constants(config, rotary=fields["position"] == "rotary", windowed=windowed)
        fields |= initialisation(config)
        if fields.get("moe"):
            fields["moe"] = fields["moe"] | balancing(config)
        refuse_other_class(config, kind, known, fields["tied_embeddings"])
        refuse_other_tensors(config, kind, known)
        alone = ", the text model alone" if outer is not values else ""
        model = ModelConfig(name=f"{kind} from {path.name}{alone}", source=str(path), **fields)
    except ValidationError as error:
        what, why, remedy = explain_validation(error)
        raise InputError(f"{path}: {what}", why=why, remedy=remedy) from None
    notes = _notes(config, kind, known)
    rate = assumed_rate(config) if model.moe else None
    if rate is not None:
        notes.append(Note("balancing_rate", str(rate[0]), rate[1]))
    less = None if model.untrained else left_out_of(config, kind, model.head_dim)
    if less is not None:
        notes.append(
            Note("hf_simplified", f"without {less}", "in memory and `gptplan run`; all parameters are counted")
        )
    if outer is not values:
        of = (
            f"{', '.join(left_out)} of {outer['model_type']} is not counted"
            if left_out
            else "the file has no other part"
        )
        notes.append(Note("hf_text", "the text model alone", of))
    return HfModel(model, tuple(notes))


def known_keys(kind: str) -> dict[str, Any]:
    """Classes, keys, their other names and defaults of a model type."""
    table, others = rules("huggingface"), rules("huggingface-remote")
    own = table["type"].get(kind) or others["type"][kind]
    names = {**own["names"], **PUBLISHED_NAMES.get(kind, {})}
    return {**own, "names": names, "keys": [*own["keys"], *table["shared_keys"]]}


def _notes(c: HfConfig, kind: str, known: dict[str, Any]) -> list[Note]:
    notes = []
    if c.assumed:
        said = ", ".join(f"{key} {size:,}" for key, size in c.assumed.items())
        notes.append(Note("hf_defaults", said, f"absent from the file: the defaults of {kind} in transformers"))
    unusual = unusual_keys(c, known)
    if unusual:
        more = ", …" if len(unusual) > NAMES_SHOWN else ""
        said = ", ".join(unusual[:NAMES_SHOWN]) + more
        reason = f"{kind} has no such keys in transformers: no tensor is counted for them"
        notes.append(Note("hf_unread", f"not read: {said}", reason))
    return notes
