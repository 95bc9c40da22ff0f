"""Constants of a model that no count depends on, but its training does: epsilon of the norms, rotary base, scaling."""

from __future__ import annotations

import math
from typing import Any

from planner.config.model import NORM_EPS
from planner.config.rope import ROPE_BASE
from planner.inputs.huggingface.reading import HfConfig

EPS_KEYS = ("rms_norm_eps", "layer_norm_epsilon", "layer_norm_eps", "norm_epsilon", "norm_eps")
BASE_KEYS = ("rope_theta", "rotary_emb_base")
# rotary base where a config.json says none: default_theta of these classes in transformers 5.23; others have 10,000
OTHER_BASES = {
    "cohere": 5e5, "ernie4_5": 5e5, "ernie4_5_moe": 5e5, "gemma3_text": 1e6, "gpt_oss": 1.5e5, "helium": 1e5,
    "llama4_text": 5e5, "mixtral": 1e6, "olmo3": 5e5, "phimoe": 1e6, "smollm3": 2e6,
}  # fmt: skip
# types whose blocks with a window have angles of their own, without scaling; their base, where the file says none
LOCAL_BASES: dict[str, float | None] = {"gemma3_text": 1e4, "olmo3": None}  # None: that of all blocks
# scaling where the file says nothing of angles: GptOssConfig of transformers 5.23
OTHER_SCALINGS: dict[str, dict[str, Any]] = {
    "gpt_oss": {"rope_type": "yarn", "factor": 32.0, "truncate": False, "original_max_position_embeddings": 4096},
}
SCALINGS = {"linear": "linear", "llama3": "llama3", "dynamic": "dynamic", "yarn": "yarn", "longrope": "longrope"} | {
    "su": "longrope"  # as Phi-3 called it first
}
_YARN_NUMBERS = ("beta_fast", "beta_slow", "mscale", "mscale_all_dim")  # of yarn; 0 and null stand for absent, as there
_LONGROPE_FACTORS = ("short_factor", "long_factor")  # of longrope


def constants(c: HfConfig, rotary: bool, windowed: bool) -> dict[str, Any]:
    """Keys of `ModelConfig` for the epsilon and, of a rotary model, its bases and scaling.

    windowed: some blocks have a sliding window. An absent key has the model type's own default; a type without a key
    for the epsilon has torch.nn.LayerNorm's. Raises InputError for a value that is none.
    """
    eps = c.key(*EPS_KEYS)
    found: dict[str, Any] = {"norm_eps": _number(c, eps, c.get(eps, NORM_EPS), least=0.0)}
    if not rotary:
        return found
    full, local = _angles(c)
    found["rope_base"] = _base(c, full)
    kind = _kind(c, full)
    if kind is not None:
        found["rope_scaling"] = _scaling(c, full, kind)
    if local is None or local == full or (not windowed and c.values["model_type"] in LOCAL_BASES):
        return found
    base = _base(c, local)
    if not windowed or _kind(c, local) is not None:
        return found | {"rope_scaling": {"kind": "by-layer", "factor": 1.0}}
    return found | ({} if base == found["rope_base"] and kind is None else {"local_rope_base": base})


def _rope_key(c: HfConfig) -> str:
    """rope_parameters (transformers 5) where it differs by layer, else rope_scaling (transformers 4) if it is there."""
    names = ("rope_scaling", "rope_parameters")
    by_layer = _by_layer(c.get(names[1], None))
    return names[1] if by_layer else c.key(*names)


def _by_layer(rope: Any) -> list[dict[str, Any]]:
    """What an object of angles says for each type of layers; empty where it says one thing for all."""
    return [value for value in rope.values() if isinstance(value, dict)] if isinstance(rope, dict) else []


def _angles(c: HfConfig) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """What the file says of the angles of blocks that see all keys, and of blocks with a window; None: the same."""
    kind, rope = c.values["model_type"], c.inside(_rope_key(c)).values or OTHER_SCALINGS.get(c.values["model_type"], {})
    by_layer = _by_layer(rope)
    full, local = rope.get("full_attention"), rope.get("sliding_attention")
    if by_layer:
        full = full if isinstance(full, dict) else by_layer[0]
        others = [value for value in by_layer if value != full]
        local = local if isinstance(local, dict) else others[0] if others else None
        if local is None and kind in LOCAL_BASES:
            local = {}
    else:
        full, local = rope, {} if kind in LOCAL_BASES else None
    if local is not None and local.get("rope_theta") is None and kind in LOCAL_BASES:
        key = "rope_local_base_freq"
        base = c.get(key, LOCAL_BASES[kind])
        local = local | ({} if base is None else {"rope_theta": _number(c, key, base, least=1.0)})
    return full, local


def _base(c: HfConfig, rope: dict[str, Any]) -> float:
    """The base of angles that `rope` describes: there in transformers 5, else beside it, else the type's default."""
    key = c.key(*BASE_KEYS)
    base = rope.get("rope_theta")
    if base is None:
        base = c.get(key, OTHER_BASES.get(c.values["model_type"], ROPE_BASE))
    return _number(c, key, base, least=1.0)


def _kind(c: HfConfig, rope: dict[str, Any]) -> str | None:
    """Our name of the scaling, None: there is none. Raises InputError for one that is not known."""
    kind = rope.get("rope_type", rope.get("type")) or "default"
    if kind == "default":
        return None
    if not isinstance(kind, str) or kind not in SCALINGS:
        raise c.unsupported(_rope_key(c), f"rope_type default, {', '.join(sorted(SCALINGS))}")
    phi = c.values["model_type"] == "phi3" and kind == "yarn"  # Phi-3 calls its own so, too
    return "longrope" if phi else SCALINGS[kind]


def _scaling(c: HfConfig, rope: dict[str, Any], kind: str) -> dict[str, Any]:
    length = c.size("max_position_embeddings")
    # beside the others where a type has the key there (Phi-3), as transformers 5 prefers it
    places = (c.get("original_max_position_embeddings", None), rope.get("original_max_position_embeddings"))
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
    if kind in ("yarn", "longrope") and rope.get("attention_factor") is not None:
        found["attention_factor"] = _number(c, "attention_factor", rope["attention_factor"], least=0.0)
    if kind == "yarn":
        found |= {
            name: _number(c, name, rope[name], least=0.0) for name in _YARN_NUMBERS if rope.get(name) not in (None, 0)
        }
        if rope.get("truncate") is not None:
            found["truncate"] = c.changed(truncate=rope["truncate"]).flag("truncate", True)
    if kind == "longrope":
        found |= {name: _factors(c, name, rope[name]) for name in _LONGROPE_FACTORS if rope.get(name) is not None}
    return found


def _factors(c: HfConfig, key: str, value: object) -> tuple[float, ...]:
    """One number for each angle. Raises InputError."""
    if not isinstance(value, list) or not value:
        raise c.changed(**{key: value}).unsupported(key, "a list of numbers")
    return tuple(_number(c, key, each, least=0.0) for each in value)


def _number(c: HfConfig, key: str, value: object, least: float) -> float:
    """A finite number above `least`. Raises InputError."""
    if isinstance(value, int | float) and not isinstance(value, bool) and least < value < math.inf:
        return float(min(value, 1e300))  # an int may be larger than any float
    raise c.changed(**{key: value}).unsupported(key, f"a number above {least:g}")
