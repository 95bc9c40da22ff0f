"""Bytes of a model with its optimizer, what they leave on a card, and what GPU-hours cost."""

from __future__ import annotations

from typing import Any

from planner.analysis.textbook.register import calculation
from planner.formulas.cost import cost_of_hours
from planner.formulas.memory import rule_14_bytes
from planner.formulas.ops import Num

_RULE = "rule of thumb: 2 (half-precision weights) + 4 (master) + 4 (m) + 4 (v) bytes per parameter; no gradient"


@calculation("1.11", "optimizer-budget", "bytes of weights, master weights and moments of a 7B model", source=_RULE)
def optimizer_budget(parameters: Num = 7_000_000_000) -> dict[str, Any]:
    """Master weights and moments are 12 bytes per parameter: 6 times the half-precision weights, where texts often say
    2 to 3 times. The gradient comes on top."""
    whole, weights, moments = rule_14_bytes(parameters), 2 * parameters, 8 * parameters
    return {
        "weights_alone": weights,
        "master_weights": whole - weights - moments,
        "moments": moments,
        "master_and_moments": whole - weights,
        "model_and_optimizer": whole,
    }


@calculation("1.14", "left-for-activations", "bytes that a 125M model leaves for activations on 80 GB", source=_RULE)
def left_for_activations(parameters: Num = 125_000_000, device_bytes: Num = 80_000_000_000) -> dict[str, Any]:
    """What the 14-byte rule leaves. The gradient, the logits and the CUDA context need some of it too: the memory
    section of gptplan estimate counts them all."""
    return {"model_and_optimizer": rule_14_bytes(parameters), "left": device_bytes - rule_14_bytes(parameters)}


@calculation("1.18", "price-of-hours", "30.84 million GPU-hours at $2.50", source="definition")
def price_of_hours(gpu_hours: Num = 30_840_000, usd_per_gpu_hour: Num = 2.5) -> dict[str, Any]:
    """GPU-hours times the price of one. 30.84M is what Llama 3.1 405B took (its model card)."""
    return {"usd": cost_of_hours(gpu_hours, usd_per_gpu_hour)}
