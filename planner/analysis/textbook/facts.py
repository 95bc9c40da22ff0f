"""Facts and orders: what decays, what comes after what, and the formats."""

from __future__ import annotations

from typing import Any

from planner.analysis.textbook.register import calculation

_TRAINER = "the reference trainer's own loop (reference_trainer/train.py)"
# type: exponent and mantissa bits
_NUMBER_FORMATS = {"bf16": (8, 7), "fp16": (5, 10), "fp32": (8, 23)}
STEP_ORDER = ("zero_grad", "forward", "scale", "backward", "unscale", "clip", "step", "update")


def largest_number(exponent_bits: int, mantissa_bits: int) -> float:
    """Largest finite number of a binary format with IEEE's reserved exponent."""
    return float((2 - 2.0**-mantissa_bits) * 2.0 ** (2 ** (exponent_bits - 1) - 1))


@calculation(
    "3.7",
    "decay-groups",
    "which parameters get weight decay",
    source="GPT-2 and GPT-3 practice; nanoGPT's configure_optimizers (matrices decay, vectors do not)",
    checked_against="the parameter groups of the reference trainer",
    arithmetic=False,
)
def decay_groups() -> dict[str, Any]:
    """Decay pulls towards 0: right for matrices, which are followed by a norm, and wrong for gains that start at 1."""
    return {
        "decays": ["matrices (2-D weights of linear layers)"],
        "no_decay": ["biases", "norm gains and shifts (1-D)"],
        "by_choice": ["embedding tables (the reference trainer decays them: they have two dimensions)"],
    }


@calculation(
    "3.16",
    "mixed-precision-step",
    "order of one mixed-precision step",
    source="PyTorch's automatic mixed precision examples",
    checked_against=_TRAINER,
    arithmetic=False,
)
def mixed_precision_step() -> dict[str, Any]:
    """Gradients are clipped after the scale has been divided out, else the limit would apply to scaled ones; the
    scaler's update comes last, when it is known whether the step was skipped."""
    return {"order": list(STEP_ORDER)}


@calculation(
    "5.12",
    "bf16-against-fp16",
    "bf16 against fp16",
    source="IEEE 754-2019 for fp16 and fp32; Kalamkar et al. 2019 (arXiv 1905.12322) for bf16",
    checked_against="torch.finfo",
    arithmetic=False,
)
def bf16_against_fp16() -> dict[str, Any]:
    """bf16 has fp32's exponents and so its range: no loss scale. fp16 ends at 65504 and loses small gradients, so that
    the loss is scaled before backward and the gradients are unscaled before clipping."""
    return {
        "largest": {name: largest_number(*bits) for name, bits in _NUMBER_FORMATS.items()},
        "needs_scale": {name: bits[0] < _NUMBER_FORMATS["fp32"][0] for name, bits in _NUMBER_FORMATS.items()},
        "order": [part for part in STEP_ORDER if part not in ("zero_grad", "update")],
    }


@calculation(
    "5.14",
    "attention-backward-order",
    "order of attention's backward",
    source="chain rule over O = P V, P = softmax(S), S = Q K^T",
    checked_against="torch's autograd over the same products (tests/planner/analysis/test_textbook_torch.py)",
    arithmetic=False,
)
def attention_backward_order() -> dict[str, Any]:
    """dV = P^T dO and dP = dO V^T need only what forward kept; dS goes through softmax's Jacobian; then dQ = dS K and
    dK = dS^T Q."""
    return {"order": ["dV", "dP", "dS", "dQ", "dK"], "independent": ["dV and dP", "dQ and dK"]}


@calculation(
    "5.17",
    "formats",
    "bits of bf16, fp16 and fp32",
    source="IEEE 754-2019; Kalamkar et al. 2019 (arXiv 1905.12322) for bf16",
    checked_against="torch.finfo",
    arithmetic=False,
)
def formats() -> dict[str, Any]:
    """Exponent bits give the range, mantissa bits the precision; one sign bit each."""
    return {
        "bits": {name: {"exponent": e, "mantissa": m, "sign": 1} for name, (e, m) in _NUMBER_FORMATS.items()},
        "largest": {name: largest_number(*bits) for name, bits in _NUMBER_FORMATS.items()},
        "spacing": {name: 2.0**-mantissa for name, (_, mantissa) in _NUMBER_FORMATS.items()},
    }
