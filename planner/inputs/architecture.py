"""Flags that change one choice of a model's architecture, over a preset, a file or a family's style."""

from __future__ import annotations

import math
from typing import Any

from planner.config.model import BIAS_STEP, LOSS_COEFFICIENT, MoeConfig
from planner.config.options import OPTIONS, flag
from planner.config.rope import ROPE_BASE
from planner.counts.shape import GATED
from planner.errors import InputError
from planner.inputs.flags import Assumptions, Flags

NUMBERS = ("layers", "hidden", "heads", "kv_heads", "head_dim", "ffn", "vocab")  # the shape
# every other flag of a model's architecture
CHOICES = ("norm_bias", *(o.name for o in OPTIONS if o.key.startswith("model.") and o.name not in NUMBERS))
DEFAULT_TOP_K = 2


def changed_options(values: dict[str, Any], flags: Flags, assumptions: Assumptions) -> dict[str, Any]:
    """Keys of `ModelConfig` that the typed options change in `values`, and those that follow from them.

    Raises UnknownNameError for an unknown choice, InputError where an option needs another.
    """
    found = {key: value for key, value in flags.keys("model").items() if key not in NUMBERS}
    found = {k: v for k, v in found.items() if values.get(k) != v}
    found |= _what_follows(values, found, flags, assumptions)
    return found | _experts(values | found, flags, assumptions)


def _what_follows(
    values: dict[str, Any], found: dict[str, Any], flags: Flags, assumptions: Assumptions
) -> dict[str, Any]:
    """Keys that would contradict a changed one."""
    more: dict[str, Any] = {}
    if "position" in found:  # what belongs to another kind of position goes with it
        more |= {"position_rows": None, "no_position_every": None}
        more |= {} if "rotary_dim" in found else {"rotary_dim": None}
        more |= {"rope_scaling": None} if values.get("rope_scaling") else {}
        more |= {"local_rope_base": None} if values.get("local_rope_base") else {}
        more |= {} if "rope_base" in found or "rope_base" not in values else {"rope_base": ROPE_BASE}
    if flags.norm_bias is not None:
        more["norm_parameters"] = _norm_parameters(values | found, bool(flags.value("norm_bias")))
    elif "norm" in found and values["norm_parameters"] != "none":
        more["norm_parameters"] = "gain" if found["norm"] == "rmsnorm" else "gain+bias"
        assumptions.add("norm_parameters", more["norm_parameters"], "LayerNorm has a gain and a bias, RMSNorm a gain")
    if "mlp" in found and flags.ffn is None and (found["mlp"] in GATED) != (values["mlp"] in GATED):
        more["ffn"] = default_ffn(values["hidden"], found["mlp"] in GATED, assumptions)
    if found.get("sliding_window", 1) is None:
        more |= {"full_attention_every": None, "local_rope_base": None}
    return {k: v for k, v in more.items() if values.get(k) != v}


def _norm_parameters(values: dict[str, Any], bias: bool) -> str:
    """With a bias gain and bias; without one a gain, or nothing where there was nothing. Raises InputError."""
    if bias and values["norm"] == "rmsnorm":
        raise InputError(
            "--norm-bias: an RMSNorm has no bias",
            why="it divides by the root mean square and multiplies by a gain; only LayerNorm has a bias",
            remedy="leave --norm-bias out, or add --norm layernorm",
        )
    return "gain+bias" if bias else "none" if values["norm_parameters"] == "none" else "gain"


def _experts(values: dict[str, Any], flags: Flags, assumptions: Assumptions) -> dict[str, Any]:
    """The mixture of experts, when one of its flags was typed."""
    numbers = flags.keys("model.moe")
    if not numbers:
        return {}
    old = MoeConfig.model_validate(values["moe"]).model_dump() if values.get("moe") else None
    if old is None and "experts" not in numbers:
        raise InputError(
            f"{flag(next(iter(numbers)))} needs --experts",
            why=f"{values['name']} has no experts",
            remedy="give --experts 8 too, or a model that has some, such as --model mixtral-8x7b",
        )
    if old is None:
        if "top_k" not in numbers:
            assumptions.add("top_k", DEFAULT_TOP_K, "default: Mixtral's (arXiv 2401.04088)")
        width = flags.count("ffn") or values["ffn"]
        if "expert_ffn" not in numbers:
            assumptions.add("expert_ffn", width, "default: each expert is as wide as the MLP it replaces (Mixtral)")
        old = {"top_k": min(DEFAULT_TOP_K, numbers["experts"]), "expert_ffn": width}
        if "balancing" not in numbers:
            assumptions.add("balancing", "none", "default: nothing evens out the experts' loads; give --balancing bias")
    if numbers.get("shared_ffn") == 0:
        numbers["shared_gate"] = False
    if "balancing" in numbers and "balancing_rate" not in numbers:
        numbers["balancing_rate"] = None  # the old one's is another quantity
        _assume_rate(numbers["balancing"], assumptions)
    return {"moe": old | numbers}


def _assume_rate(method: str, assumptions: Assumptions) -> None:
    """Notes the rate of a balancing method that was typed without one."""
    if method == "bias":
        assumptions.add("balancing_rate", BIAS_STEP, "default: DeepSeek-V3's step (arXiv 2412.19437, section 4.2)")
    elif method != "none":
        source = "default: Switch Transformer's coefficient (arXiv 2101.03961, section 2.2)"
        assumptions.add("balancing_rate", LOSS_COEFFICIENT, source)


def padded_vocab(values: dict[str, Any], flags: Flags) -> dict[str, Any]:
    """The vocabulary rounded up by --pad-vocab, the tokenizer's kept beside it. Raises UnitError."""
    multiple = flags.count("pad_vocab")
    if multiple is None:
        return {}
    padded = -(-values["vocab"] // multiple) * multiple
    if padded == values["vocab"]:
        return {}
    return {"vocab": padded, "tokenizer_vocab": values.get("tokenizer_vocab") or values["vocab"]}


def default_ffn(hidden: int, gated: bool, assumptions: Assumptions) -> int:
    """The inner width that a family gives to an MLP, noted as an assumption."""
    ffn = _gated_width(hidden) if gated else 4 * hidden
    assumptions.add("ffn", ffn, "8/3 of the width, to 256 (LLaMA)" if gated else "4 times the width (GPT-2)")
    return ffn


def _gated_width(hidden: int) -> int:
    """Inner width of a gated MLP: 8/3 of the width, rounded up to 256 (LLaMA, arXiv 2302.13971, section 2.2)."""
    return math.ceil(8 * hidden / 3 / 256) * 256
