"""How transformers draws the initial weights of a model type: one standard deviation, and who else divides it."""

from __future__ import annotations

from typing import Any

from planner.config.model import INIT_STD
from planner.inputs.huggingface.reading import HfConfig

STD_KEYS = ("initializer_range", "init_std")
# whose _init_weights divides the projections into the residual stream by sqrt(2 layers) (transformers 5.23)
SCALED_TYPES = ("gpt2", "gpt_bigcode")


def initialisation(c: HfConfig) -> dict[str, Any]:
    """Keys of `ModelConfig` for the initial weights; an absent key has the model type's own default.

    Raises InputError for a value that is no standard deviation.
    """
    key = c.key(*STD_KEYS)
    std = c.get(key, INIT_STD)
    if isinstance(std, bool) or not isinstance(std, int | float) or not 0 < std <= 1:
        raise c.unsupported(key, "a number above 0, at most 1")
    return {"init_std": float(std), "init_residual": "scaled" if c.values["model_type"] in SCALED_TYPES else "same"}
