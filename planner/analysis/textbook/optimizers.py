"""Moments and updates of the optimizers, one weight at a time."""

from __future__ import annotations

from typing import Any

from planner.analysis.textbook.register import Vector, calculation
from planner.formulas.ops import Num, sqrt

_ADAM = "Kingma and Ba 2015 (arXiv 1412.6980), algorithm 1"
_ADAMW = "Loshchilov and Hutter 2019 (arXiv 1711.05101), algorithm 2"
_TORCH = "torch.optim, step by step, to rounding (tests/planner/analysis/test_textbook_torch.py)"


def moment(decay: Num, values: Vector) -> Num:
    """Running mean with weight 1 - decay on the newest value, started at 0."""
    found: Num = 0
    for value in values:
        found = decay * found + (1 - decay) * value
    return found


def corrected(decay: Num, values: Vector) -> Num:
    """The running mean over the weight that it has gathered so far."""
    return moment(decay, values) / (1 - decay ** len(values))


def squares(values: Vector) -> Vector:
    """Each value squared."""
    return tuple(value * value for value in values)


def adam_step(m_hat: Num, v_hat: Num, rate: Num, eps: Num) -> Num:
    """What Adam takes off a weight."""
    return rate * m_hat / (sqrt(v_hat) + eps)


@calculation(
    "3.1", "adam-first-moment", "Adam's first moment after gradients 4, -2, 6", source=_ADAM, checked_against=_TORCH
)
def adam_first_moment(beta1: Num = 0.9, gradients: Vector = (4.0, -2.0, 6.0)) -> dict[str, Any]:
    """The running mean starts at 0, so that it is too small at first; dividing by 1 - beta1^t makes up for it."""
    return {"first_corrected": corrected(beta1, gradients), "first_moment": moment(beta1, gradients)}


@calculation(
    "3.2", "adam-second-moment", "Adam's second moment after the same gradients", source=_ADAM, checked_against=_TORCH
)
def adam_second_moment(beta2: Num = 0.999, gradients: Vector = (4.0, -2.0, 6.0)) -> dict[str, Any]:
    """The same running mean over the squared gradients; signs are lost, sizes are kept."""
    return {
        "second_corrected": corrected(beta2, squares(gradients)),
        "second_moment": moment(beta2, squares(gradients)),
    }


@calculation(
    "3.8", "adamw-against-l2", "weight decay in AdamW against L2 in Adam: what it takes off a weight", source=_ADAMW
)
def adamw_against_l2(rate: Num = 1e-3, decay: Num = 0.1, weight: Num = 1.0, root: Num = 10.0) -> dict[str, Any]:
    """AdamW takes rate x decay x weight off; Adam + L2 sends the decay through the gradient, where it is divided by
    the root of the second moment like everything else: weights with large gradients hardly decay."""
    taken = rate * decay * weight
    return {"decay_by_adamw": taken, "decay_by_adam_l2": taken / root, "ratio": root}


@calculation(
    "3.9",
    "optimizer-state-bytes",
    "bytes of optimizer state per parameter",
    source="Dettmers et al. 2022 (arXiv 2110.02861); Chen et al. 2023 (Lion, arXiv 2302.06675); Shazeer and Stern "
    "2018 (Adafactor, arXiv 1804.04235); Jordan et al. 2024 (Muon); torch.optim for the rest",
)
def optimizer_state_bytes(rows: Num = 768, columns: Num = 3072, block: Num = 256) -> dict[str, Any]:
    """fp32 moments take 4 bytes each. 8-bit moments take 1 and a 4-byte scale per block (small tensors stay fp32);
    Adafactor keeps sums of rows and of columns in place of a moment per entry."""
    fp32 = 4
    return {
        "adamw_bytes": 2 * fp32,
        "adamw_8bit_bytes": 2 + 2 * fp32 / block,
        "lion_bytes": fp32,
        "adafactor_bytes": fp32 * (rows + columns) / (rows * columns),
        "sgd_momentum_bytes": fp32,
        "muon_bytes": fp32,
    }


@calculation(
    "3.11",
    "bias-correction",
    "moments of a constant gradient, and the correction factors",
    source=_ADAM + ", section 3",
    checked_against=_TORCH,
    concrete=("at",),
)
def bias_correction(
    beta1: Num = 0.9, beta2: Num = 0.999, gradients: Vector = (1.0,) * 5, at: int = 3
) -> dict[str, Any]:
    """Moments after each step; corrected, a constant gradient is found exactly from the first step on."""
    steps = range(1, len(gradients) + 1)
    return {
        "first_moment": [moment(beta1, gradients[:k]) for k in steps],
        "first_corrected": [corrected(beta1, gradients[:k]) for k in steps],
        "first_factor": 1 / (1 - beta1**at),
        "second_factor": 1 / (1 - beta2**at),
    }


@calculation(
    "3.12",
    "one-adamw-step",
    "the first step of AdamW and of Adam + L2 from one weight",
    source=_ADAMW,
    checked_against=_TORCH,
)
def one_adamw_step(
    weight: Num = 1.0, gradient: Num = 0.5, rate: Num = 1e-3, decay: Num = 0.1, eps: Num = 0.0
) -> dict[str, Any]:
    """At the first step both corrected moments are the gradient and its square, so that Adam moves by the rate
    whatever the gradient's size; only AdamW's decay comes on top."""
    with_l2 = gradient + decay * weight
    return {
        "adamw": weight * (1 - rate * decay) - adam_step(gradient, gradient * gradient, rate, eps),
        "adam_l2": weight - adam_step(with_l2, with_l2 * with_l2, rate, eps),
    }


@calculation(
    "3.15",
    "updates-by-formula",
    "our own SGD, momentum, Adam, AdamW and clipping, compared with torch's",
    source="torch.optim's documented update rules; torch.nn.utils.clip_grad_norm_ adds 1e-6 to the norm",
    checked_against=_TORCH,
)
def updates_by_formula(
    weight: Num = 1.0,
    gradients: Vector = (0.5, -0.2, 0.3),
    rate: Num = 1e-3,
    momentum: Num = 0.9,
    beta1: Num = 0.9,
    beta2: Num = 0.999,
    decay: Num = 0.1,
    eps: Num = 1e-8,
) -> dict[str, Any]:
    """The weight after one step per gradient, by each optimizer. The gradients are taken as they come, whatever the
    weight has become."""
    plain = heavy = by_adam = by_adamw = weight
    velocity: Num = 0
    for k, gradient in enumerate(gradients, start=1):
        plain = plain - rate * gradient
        velocity = momentum * velocity + gradient
        heavy = heavy - rate * velocity
        step = adam_step(corrected(beta1, gradients[:k]), corrected(beta2, squares(gradients[:k])), rate, eps)
        by_adam = by_adam - step
        by_adamw = by_adamw * (1 - rate * decay) - step
    return {"sgd": plain, "sgd_momentum": heavy, "adam": by_adam, "adamw": by_adamw}
