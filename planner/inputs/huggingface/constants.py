"""Constants of a model that no count depends on, but its training does: epsilon of the norms, rotary base, scaling."""

from __future__ import annotations

import math
from typing import Any

from planner.config.model import NORM_EPS, ROPE_BASE
from planner.inputs.huggingface.reading import HfConfig

EPS_KEYS = ("rms_norm_eps", "layer_norm_epsilon", "layer_norm_eps", "norm_epsilon", "norm_eps")
BASE_KEYS = ("rope_theta", "rotary_emb_base")
# rotary base where a config.json says none: default_theta of these classes in transformers 5.23; others have 10,000
OTHER_BASES = {
    "cohere": 5e5, "ernie4_5": 5e5, "ernie4_5_moe": 5e5, "gemma3_text": 1e6, "gpt_oss": 1.5e5, "helium": 1e5,
    "llama4_text": 5e5, "mixtral": 1e6, "olmo3": 5e5, "phimoe": 1e6, "smollm3": 2e6,
}  # fmt: skip
LOCAL_BASES = {"gemma3_text": 1e4}  # of blocks with a window, where the file says none
SCALINGS = {"linear": "linear", "llama3": "llama3", "dynamic": "dynamic", "yarn": "yarn", "longrope": "longrope"} | {
    "su": "longrope"  # as Phi-3 called it first
}


def constants(c: HfConfig, rotary: bool) -> dict[str, Any]:
    """Keys of `ModelConfig` for the epsilon and, of a rotary model, its base and scaling.

    An absent key has the model type's own default; a type without a key for the epsilon has torch.nn.LayerNorm's.
    Raises InputError for a value that is none.
    """
    eps = c.key(*EPS_KEYS)
    found: dict[str, Any] = {"norm_eps": _number(c, eps, c.get(eps, NORM_EPS), least=0.0)}
    if not rotary:
        return found
    rope, key = _rope(c), c.key(*BASE_KEYS)
    base = rope.get("rope_theta")  # where transformers 5 writes it
    if base is None:
        base = c.get(key, OTHER_BASES.get(c.values["model_type"], ROPE_BASE))
    found["rope_base"] = _number(c, key, base, least=1.0)
    if _differs_by_layer(c, found["rope_base"]):
        return found | {"rope_scaling": {"kind": "by-layer", "factor": 1.0}}
    kind = rope.get("rope_type", rope.get("type")) or "default"
    if kind == "default":
        return found
    if not isinstance(kind, str) or kind not in SCALINGS:
        raise c.unsupported(_rope_key(c), f"rope_type default, {', '.join(sorted(SCALINGS))}")
    return found | {"rope_scaling": _scaling(c, rope, SCALINGS[kind])}


def _rope_key(c: HfConfig) -> str:
    return c.key("rope_scaling", "rope_parameters")  # transformers 4, transformers 5


def _rope(c: HfConfig) -> dict[str, Any]:
    """The object that says how angles are made; of several that of the blocks that see all keys."""
    rope = c.inside(_rope_key(c)).values
    by_layer = [value for value in rope.values() if isinstance(value, dict)]
    if not by_layer:
        return rope
    full = rope.get("full_attention")
    return full if isinstance(full, dict) else by_layer[0]


def _differs_by_layer(c: HfConfig, base: float) -> bool:
    """Whether blocks with a window have other angles than those without one."""
    rope = c.inside(_rope_key(c)).values
    by_layer = [value for value in rope.values() if isinstance(value, dict)]
    if by_layer:
        return any(value != by_layer[0] for value in by_layer)
    local = c.get("rope_local_base_freq", LOCAL_BASES.get(c.values["model_type"]))
    return local is not None and _number(c, "rope_local_base_freq", local, least=1.0) != base


def _scaling(c: HfConfig, rope: dict[str, Any], kind: str) -> dict[str, Any]:
    length = c.size("max_position_embeddings")
    places = (rope.get("original_max_position_embeddings"), c.get("original_max_position_embeddings", None))
    stated = next((value for value in places if value is not None), None)
    original = length if stated is None else stated
    if type(original) is not int or original < 1:
        raise c.unsupported(_rope_key(c), "original_max_position_embeddings a positive whole number")
    factor = rope.get("factor")
    found: dict[str, Any] = {
        "kind": kind,
        "factor": _number(c, "factor", max(1.0, length / original) if factor is None else factor, least=0.0),
        "original_context": stated,
    }
    if kind == "llama3":
        found["original_context"] = original
        for name in ("low_freq_factor", "high_freq_factor"):
            found[name] = _number(c, name, rope.get(name), least=0.0)
    return found


def _number(c: HfConfig, key: str, value: object, least: float) -> float:
    """A finite number above `least`. Raises InputError."""
    if isinstance(value, int | float) and not isinstance(value, bool) and least < value < math.inf:
        return float(min(value, 1e300))  # an int may be larger than any float
    raise c.changed(**{key: value}).unsupported(key, f"a number above {least:g}")
