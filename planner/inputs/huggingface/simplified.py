"""What a config.json says that the reference trainer does not compute, without a parameter or FLOP that is counted."""

from __future__ import annotations

from typing import Any

from planner.inputs.huggingface.reading import HfConfig

_SCALED = "the embeddings' factor of the square root of the width"
_SUM = "a router whose weights do not sum to 1"
# of these types always, but for the last by a key
SIMPLIFIED = {
    "gemma": _SCALED, "gemma2": f"{_SCALED}, and soft-capped attention scores", "gemma3_text": _SCALED,
    "deepseek_v2": "the router's own rule (groups, sigmoids, a factor)",
    "deepseek_v3": "the router's own rule (groups, sigmoids, a factor)",
    "qwen2_moe": _SUM, "qwen3_moe": _SUM, "olmoe": _SUM,
}  # fmt: skip
# keys by what they say, and the values with which they say nothing
_CLIPPED = "clipped queries, keys and values"
_SCORES = "scores divided by another number than the square root of the head's width"
_NOISE = "noise on the router's inputs"
KEYS_LEFT_OUT: dict[str, tuple[str, tuple[Any, ...]]] = {
    "clip_qkv": (_CLIPPED, (None,)),
    "scale_attn_weights": (_SCORES, (None, True)),
    "scale_attn_by_inverse_layer_idx": (_SCORES, (None, False)),
    "softmax_scale": (_SCORES, (None,)),
    "apply_residual_connection_post_layernorm": ("residuals from behind the norms", (None, False)),
    "router_jitter_noise": (_NOISE, (None, 0)),
    "input_jitter_noise": (_NOISE, (None, 0)),
    "router_z_loss_coef": ("the z-loss of the router", (None, 0)),
}
_WITHIN = "attn_config"  # MPT has some of these keys there


def left_out_of(c: HfConfig, kind: str, head_dim: int | None) -> str | None:
    """What the reference trainer leaves out of a type that it otherwise trains, in words; None for most files."""
    found = [] if SIMPLIFIED.get(kind) == _SUM and c.get("norm_topk_prob", None) is True else [SIMPLIFIED.get(kind)]
    places = (c, c.inside(_WITHIN)) if c.has(_WITHIN) else (c,)
    found += [words for key, (words, off) in KEYS_LEFT_OUT.items() for p in places if p.get(key, None) not in off]
    scalar = c.get("query_pre_attn_scalar", None)
    if scalar is not None and scalar != head_dim:
        found.append(_SCORES)
    if kind == "mpt" and c.get("logit_scale", None) is not None:
        found.append("a factor of the logits")
    return ", and ".join(dict.fromkeys(words for words in found if words)) or None
