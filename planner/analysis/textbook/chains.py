"""The chain rule, shown by sympy on small functions."""

from __future__ import annotations

from typing import Any

from planner.analysis.textbook.register import Vector, calculation
from planner.formulas.ops import Num, maximum

_CHAIN = "chain rule; the derivative of ReLU at 0 is taken as 0, as frameworks do"
_AUTOGRAD = "torch's autograd over the same function"


def _relu(value: Num) -> Num:
    """The value where it is positive, else 0."""
    return maximum(0, value)


@calculation(
    "5.10",
    "chain-rule",
    "derivatives of (3x + 2)^2 at 1, of a two-layer network, of a dead ReLU and of the logistic function",
    source=_CHAIN,
    checked_against=_AUTOGRAD,
    concrete=("weights", "biases", "x", "wanted", "slope", "offset"),
    arithmetic=False,
)
def chain_rule(
    x: Num = 1.0,
    slope: Num = 3.0,
    offset: Num = 2.0,
    weights: Vector = (2.0, 3.0),
    biases: Vector = (-1.0, 0.5),
    wanted: Num = 4.0,
) -> dict[str, Any]:
    """Derivatives multiply along the chain. The loss is (y - t)^2 with y = w2 ReLU(w1 x + b1) + b2; where the
    ReLU's input is negative nothing comes through. The logistic function is steepest at 0, a quarter."""
    import sympy  # only when this is asked for

    t, s = sympy.symbols("t s", real=True)
    square = sympy.diff((sympy.Float(slope) * t + sympy.Float(offset)) ** 2, t).subs(t, x)

    def by_first_weight(w1: float) -> float:
        (w2, b1, b2) = (weights[1], *biases)
        y = w2 * _relu(w1 * x + b1) + b2
        open_ = 1.0 if w1 * x + b1 > 0 else 0.0
        return float(2 * (y - wanted) * w2 * open_ * x) + 0.0  # 0 has no sign here

    return {
        "square_derivative": float(square),
        "weight_gradient": by_first_weight(weights[0]),
        "dead_gradient": by_first_weight(-abs(weights[0]) if x > 0 else abs(weights[0])),
        "sigmoid_slope": float(sympy.diff(1 / (1 + sympy.exp(-s)), s).subs(s, 0)),
    }


@calculation(
    "5.16",
    "relu-chain",
    "the derivative of w3 ReLU(w2 ReLU(w1 x)) by w1; a chain of functions",
    source=_CHAIN,
    checked_against=_AUTOGRAD,
    concrete=("weights", "x"),
    arithmetic=False,
)
def relu_chain(x: Num = 1.0, weights: Vector = (2.0, -3.0, 4.0)) -> dict[str, Any]:
    """The derivative is the product of the local derivatives: one closed ReLU on the way makes it 0."""
    import sympy  # only when this is asked for

    value, product = x, x
    for i, w in enumerate(weights):
        value = w * value
        product = product * (w if i else 1)
        if i < len(weights) - 1:
            product = product * (1.0 if value > 0 else 0.0)
            value = _relu(value)
    s = sympy.Symbol("x")
    f, g, h = (sympy.Function(name) for name in "fgh")
    return {"weight_gradient": float(product) + 0.0, "chain": str(sympy.diff(f(g(h(s))), s).doit())}
