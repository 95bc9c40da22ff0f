"""Model types whose code stands beside their weights, not in transformers: InternLM2, MiniCPM.

Their classes, keys and defaults are those of the published configuration files, in
presets/rules/huggingface-remote.toml; the tensors those of the published modeling files.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from planner.inputs.huggingface.llama import decoder
from planner.inputs.huggingface.newer import MULTIPLIERS
from planner.inputs.huggingface.reading import HfConfig


def internlm2(c: HfConfig) -> dict[str, Any]:
    """InternLM2, InternLM2.5: Llama with fused projections; `bias` is that of attention alone."""
    return decoder(c) | {"biases": c.biases("bias", "bias", None)}


def minicpm(c: HfConfig) -> dict[str, Any]:
    """MiniCPM 1 and 2, dense: Llama with scaled embeddings, residuals and logits."""
    return decoder(c) | {
        "biases": c.biases(mlp=None),
        "tied_embeddings": c.flag("tie_word_embeddings", True),
        "untrained": MULTIPLIERS,
    }


REMOTE_FAMILIES: dict[str, Callable[[HfConfig], dict[str, Any]]] = {f.__name__: f for f in (internlm2, minicpm)}
