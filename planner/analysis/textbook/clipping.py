"""Gradient norms and clipping by the global norm."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

from planner.analysis.textbook.register import Vector, calculation
from planner.formulas.ops import Num, minimum, sqrt

_PASCANU = "Pascanu et al. 2013 (arXiv 1211.5063), algorithm 1"
# the largest norm of the log over its first: ten times is no noise, a hundred is a spike
RUNAWAY = 10


def l2_norm(values: Vector) -> Num:
    """Root of the sum of squares."""
    return sqrt(sum(value * value for value in values))


def clip_factor(norm: Num, max_norm: Num, eps: Num = 0) -> Num:
    """What a gradient of this norm is multiplied by; torch adds an `eps` of 1e-6 to the norm."""
    return minimum(1, max_norm / (norm + eps))


@calculation(
    "3.3", "gradient-norm", "L2 norm of a gradient", source="definition", checked_against="torch.linalg.vector_norm"
)
def gradient_norm(gradients: Vector = (0.3, -0.4, 0.5, -0.1, 0.2)) -> dict[str, Any]:
    """All entries of all tensors are one long vector; its length is what clipping looks at."""
    return {"norm": l2_norm(gradients)}


@calculation(
    "3.4",
    "clip-by-norm",
    "clipping a gradient of norm 5 to 1: factor, and an entry of 2",
    source=_PASCANU,
    checked_against="torch.nn.utils.clip_grad_norm_, which adds 1e-6 to the norm",
)
def clip_by_norm(norm: Num = 5.0, max_norm: Num = 1.0, gradient: Num = 2.0) -> dict[str, Any]:
    """Every entry is multiplied by the same factor, at most 1: the gradient gets shorter and keeps its direction."""
    factor = clip_factor(norm, max_norm)
    return {"factor": factor, "clipped": gradient * factor}


@calculation(
    "3.5",
    "clipping-log",
    "what a log of gradient norms says",
    source="rule: a norm that is not a number, or that only rises and ends beyond 10 times its start, is divergence",
    checked_against="none: a rule of thumb",
    concrete=("norms", "max_norm"),
    arithmetic=False,
)
def clipping_log(
    norms: Vector = (1.2, 1.5, 1.8, 2.4, 4.1, 12.3, 89.7, math.nan), max_norm: float = 1.0
) -> dict[str, Any]:
    """Clipping limits the length of one step and cannot turn a run round that climbs by itself: when nearly every
    norm is above the limit and they keep growing, the rate is too high."""
    above = [not norm <= max_norm for norm in norms]  # NaN is above any limit
    finite = [norm for norm in norms if math.isfinite(norm)]
    rising = len(finite) > 1 and all(a < b for a, b in pairwise(finite))
    diverging = len(finite) < len(norms) or (rising and finite[-1] > RUNAWAY * finite[0])
    if diverging:
        advice = "lower the learning rate, from a checkpoint before the climb; more clipping is no cure"
    elif 2 * sum(above) > len(above):
        advice = "clipping works on most steps: a lower rate or a longer warm-up, not more clipping"
    else:
        advice = "nothing: clipping catches single steps, as it should"
    return {
        "active_from": above.index(True) + 1 if True in above else 0,
        "active_share": sum(above) / len(above),
        "diverging": diverging,
        "advice": advice,
    }


@calculation(
    "3.14",
    "clipping-keeps-direction",
    "clipping keeps the direction; scaled micro-gradients sum to the full gradient",
    source=_PASCANU + "; linearity of the mean",
    checked_against="sympy: both differences simplify to 0",
    concrete=("elements",),
    arithmetic=False,
)
def clipping_keeps_direction(elements: int = 4) -> dict[str, Any]:
    """Shown with symbols: the cross products of a gradient and its clipped self vanish, and K micro-gradients, each
    scaled by 1/K, sum to the gradient of the mean loss."""
    import sympy  # only when this is asked for

    if not 2 <= elements <= 16:
        raise ValueError("elements must lie between 2 and 16")
    entries = sympy.symbols(f"g1:{elements + 1}", real=True)
    limit = sympy.Symbol("c", positive=True)
    short = [g * clip_factor(l2_norm(entries), limit) for g in entries]
    crosses = [sympy.simplify(short[0] * g - s * entries[0]) for g, s in zip(entries, short, strict=True)]
    full = sum(entries) / sympy.Integer(elements)
    scaled = sum(g / sympy.Integer(elements) for g in entries)
    return {"direction": [str(cross) for cross in crosses], "mean": str(sympy.simplify(scaled - full))}
