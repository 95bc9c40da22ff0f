"""Softmax, cross-entropy, perplexity, and what a language model is scored on."""

from __future__ import annotations

from functools import reduce
from typing import Any

from planner.analysis.textbook.register import Matrix, Vector, calculation
from planner.formulas.ops import Num, exp, log, maximum
from planner.units import LARGEST_PLAIN, format_count_exact

_DEFINITION = "definition of softmax and cross-entropy"
_TORCH = "torch.nn.functional.cross_entropy and its gradient"
# the smallest positive fp16 number: 10 mantissa bits below the smallest exponent, -14
FP16_SMALLEST = 2.0**-24


def _spelled(index: int) -> str:
    """An index in a text: its digits, or an exponent where nobody would read them."""
    return str(index) if index < LARGEST_PLAIN else format_count_exact(index)


def log_sum_exp(logits: Vector) -> Num:
    """Logarithm of the sum of exponentials, the largest taken out first so that nothing overflows."""
    top = reduce(maximum, logits)
    return top + log(sum(exp(z - top) for z in logits))


def softmax(logits: Vector) -> list[Num]:
    """Probabilities that sum to 1."""
    top = reduce(maximum, logits)
    weights = [exp(z - top) for z in logits]
    return [w / sum(weights) for w in weights]


def cross_entropy(logits: Vector, target: int) -> Num:
    """Minus the log-probability of the class `target`. Raises IndexError for a class that is not there."""
    if not 0 <= target < len(logits):
        raise IndexError(f"class {_spelled(target)} of {len(logits)}")
    return log_sum_exp(logits) - logits[target]


def jacobian(probabilities: list[Num]) -> list[list[Num]]:
    """diag(p) - p p^T."""
    return [[p * ((1 if i == j else 0) - q) for j, q in enumerate(probabilities)] for i, p in enumerate(probabilities)]


@calculation(
    "4.1", "softmax-loss", "softmax and loss of logits 2, 1, 0.1, class 0", source=_DEFINITION, checked_against=_TORCH,
    concrete=("target",),
)  # fmt: skip
def softmax_loss(logits: Vector = (2.0, 1.0, 0.1), target: int = 0) -> dict[str, Any]:
    """Exponentials over their sum; the loss is minus the logarithm of the true class's share."""
    return {"probabilities": softmax(logits), "loss": cross_entropy(logits, target)}


@calculation(
    "4.2", "loss-gradient", "gradient of that loss by the logits", source=_DEFINITION, checked_against=_TORCH,
    concrete=("target",),
)  # fmt: skip
def loss_gradient(logits: Vector = (2.0, 1.0, 0.1), target: int = 0) -> dict[str, Any]:
    """The probabilities, less 1 at the true class: what is taken from the others is given to it, so they sum to 0."""
    if not 0 <= target < len(logits):
        raise IndexError(f"class {_spelled(target)} of {len(logits)}")
    found = [p - (1 if i == target else 0) for i, p in enumerate(softmax(logits))]
    return {"logit_gradient": found, "total": sum(found)}


@calculation(
    "4.3", "mean-loss", "mean loss of two examples", source=_DEFINITION, checked_against=_TORCH, concrete=("targets",)
)
def mean_loss(logits: Matrix = ((2.0, 1.0, 0.1), (0.5, 2.5, 0.3)), targets: tuple[int, ...] = (0, 1)) -> dict[str, Any]:
    """One loss per row of logits, then their mean."""
    losses = [cross_entropy(row, target) for row, target in zip(logits, targets, strict=True)]
    return {"mean_loss": sum(losses) / len(losses)}


@calculation("4.4", "perplexity", "perplexity of 1.6, 2.0, 2.5 nats", source="definition: e to the loss")
def perplexity(losses: Vector = (1.6, 2.0, 2.5)) -> dict[str, Any]:
    """The number of equally likely tokens among which the model is as unsure."""
    return {"perplexity": [exp(loss) for loss in losses]}


@calculation(
    "4.5",
    "untrained-loss",
    "loss of an untrained model",
    source="uniform probabilities 1/V",
    checked_against="the first loss of a run of the reference trainer",
)
def untrained_loss(vocab: Num = 50257) -> dict[str, Any]:
    """A model that knows nothing gives each token 1/V; a first loss far from ln V is a wrong start or wrong labels."""
    return {"loss": log(vocab)}


@calculation(
    "4.6", "log-sum-exp", "log-sum-exp of 1000, 1001, 1002", source=_DEFINITION, checked_against="torch.logsumexp"
)
def stable_log_sum_exp(logits: Vector = (1000.0, 1001.0, 1002.0)) -> dict[str, Any]:
    """e^1000 is beyond any float; with the largest logit taken out the exponentials are at most 1."""
    return {"log_sum_exp": log_sum_exp(logits)}


@calculation(
    "4.7",
    "next-token-shift",
    "signals of T + 1 tokens",
    source="definition of next-token prediction",
    checked_against="the batches of the reference trainer",
    concrete=("given",),
    arithmetic=False,
)
def next_token_shift(given: int = 1025) -> dict[str, Any]:
    """Each token but the last is an input, each but the first is the target of the one before it."""
    if given < 2:
        raise ValueError("a target needs two tokens at least")
    return {
        "signals": given - 1,
        "inputs_seen": f"x_1 … x_{_spelled(given - 1)}",
        "targets_seen": f"x_2 … x_{_spelled(given)}",
    }


@calculation(
    "4.8",
    "loss-scale",
    "an fp16 gradient of 1e-9 with a loss scale of 65536",
    source="Micikevicius et al. 2018 (arXiv 1710.03740), section 3.2",
)
def loss_scale(gradient: Num = 1e-9, scale: Num = 65536.0) -> dict[str, Any]:
    """Scaling the loss scales every gradient; what would vanish below fp16's smallest number is kept, and divided
    out again before clipping and the step."""
    half = FP16_SMALLEST / 2  # what is at most half the smallest number is rounded to 0
    return {
        "scaled": gradient * scale,
        "smallest_fp16": FP16_SMALLEST,
        "kept_unscaled": abs(gradient) > half,
        "kept_scaled": abs(gradient * scale) > half,
    }


@calculation(
    "4.9", "ten-classes", "loss and perplexity of ten logits, class 2", source=_DEFINITION, checked_against=_TORCH,
    concrete=("target",),
)  # fmt: skip
def ten_classes(
    logits: Vector = (-1.0, 0.5, 2.0, -0.5, 1.0, 0.0, -1.5, 0.3, -0.8, 0.2), target: int = 2
) -> dict[str, Any]:
    """As 4.1, with more classes."""
    loss = cross_entropy(logits, target)
    return {"loss": loss, "perplexity": exp(loss)}


@calculation(
    "4.10", "perplexity-of-a-guess", "perplexity of 0, 2.3, 4.6, 6.9 nats, and of a uniform guess",
    source="definition: e to the loss",
)  # fmt: skip
def perplexity_of_a_guess(losses: Vector = (0.0, 2.3, 4.6, 6.9), vocab: Num = 50257) -> dict[str, Any]:
    """Each 2.3 nats are a factor of about ten; a uniform guess over V tokens has the perplexity V."""
    return {"perplexity": [exp(loss) for loss in losses], "uniform": exp(log(vocab))}


@calculation(
    "4.11",
    "softmax-jacobian",
    "Jacobian of softmax",
    source="derivative of the definition",
    checked_against="sympy: formula minus derivative simplifies to 0",
)
def softmax_jacobian(logits: Vector = (2.0, 1.0, 0.1)) -> dict[str, Any]:
    """diag(p) - p p^T: raising a logit raises its own probability and lowers the others in proportion."""
    import sympy  # only when this is asked for

    symbols = sympy.symbols(f"z1:{min(len(logits), 4) + 1}", real=True)  # shown for four, which takes a second
    plain = [sympy.exp(z) / sum(sympy.exp(y) for y in symbols) for z in symbols]
    formula = jacobian(plain)
    differences = [
        sympy.simplify(formula[i][j] - sympy.diff(p, z)) for i, p in enumerate(plain) for j, z in enumerate(symbols)
    ]
    return {"jacobian": jacobian(softmax(logits)), "difference": sorted({str(d) for d in differences})}
