"""How the published model of a type balances its experts: by a loss that its config.json weighs, or by a bias."""

from __future__ import annotations

from typing import Any

from planner.config.model import BIAS_STEP
from planner.inputs.huggingface.reading import HfConfig

POOLED_KEY = "router_aux_loss_coef"  # of transformers' load_balancing_loss_func, which pools the blocks
SUMMED_KEY = "aux_loss_alpha"  # of DeepSeek-V2's own code, where each block adds its own
# the bias is a buffer of these (e_score_correction_bias); its step is published for V3 alone, 0.001
BIASED_TYPES = ("deepseek_v3", "glm4_moe", "dots1")


def balancing(c: HfConfig) -> dict[str, Any]:
    """Keys of `MoeConfig` for what balances the experts; empty where the type publishes nothing.

    Raises InputError for a coefficient that is none.
    """
    if c.values["model_type"] in BIASED_TYPES:
        return {"balancing": "bias"}
    for key, method in ((POOLED_KEY, "loss-pooled"), (SUMMED_KEY, "loss-sum")):
        found = c.get(key, None)
        if found is None or (found == 0 and not isinstance(found, bool)):
            continue
        if isinstance(found, bool) or not isinstance(found, int | float) or not 0 < found <= 1e6:
            raise c.unsupported(key, "a number, 0 or more")
        return {"balancing": method, "balancing_rate": float(found)}
    return {}


def assumed_rate(c: HfConfig) -> tuple[float, str] | None:
    """The rate of `balancing` that the file does not say, and whose it is; None where it does, or nothing balances."""
    kind, found = c.values["model_type"], balancing(c)
    if found.get("balancing") == "bias":
        return BIAS_STEP, "step of the bias, of which config.json says nothing: DeepSeek-V3's (arXiv 2412.19437, 4.2)"
    if found.get("balancing") != "loss-pooled" or POOLED_KEY in c.values:  # of the other key no type has a default
        return None
    return found["balancing_rate"], f"{POOLED_KEY} is absent from the file: the default of {kind} in transformers"
