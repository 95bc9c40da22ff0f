"""Learning rate against batch size, and gradients over several micro-batches."""

from __future__ import annotations

from typing import Any

from planner.analysis.textbook.register import Vector, calculation
from planner.formulas.batch import batch_of_the_rate, critical_batch, linear_scaled_rate, sqrt_scaled_rate
from planner.formulas.ops import Num

_LINEAR = "linear: Goyal et al. 2017 (arXiv 1706.02677)"
_ROOT = "square root, for Adam: Malladi et al. 2022 (arXiv 2205.10287)"


def rates(peak_lr: Num, tuned: Num, wanted: Num) -> dict[str, Any]:
    """The rate of a batch of `wanted` tokens, by both rules, where it was tuned for `tuned` tokens."""
    return {
        "linear": linear_scaled_rate(peak_lr, tuned, wanted),
        "square_root": sqrt_scaled_rate(peak_lr, tuned, wanted),
    }


@calculation(
    "3.6",
    "rate-against-batch",
    "the rate of a larger batch, bounded by the critical batch",
    source=f"{_LINEAR}; {_ROOT}; bound: McCandlish et al. 2018 (arXiv 1812.06162), with the fit of Kaplan et al. 2020 "
    "(arXiv 2001.08361), equation 5.3",
    checked_against="none: published fits, which differ between set-ups",
)
def rate_against_batch(
    peak_lr: Num = 3e-4,
    tuned_batch_tokens: Num = 524288,
    tokens_per_step: Num = 4194304,
    loss: Num = 3.0,
    critical_scale: Num = 2.0e8,
    critical_exponent: Num = 0.21,
) -> dict[str, Any]:
    """Beyond the critical batch the gradient is hardly less noisy, so that the rate stops growing with the batch
    there; the critical batch itself grows as the loss falls."""
    bound = critical_batch(loss, critical_scale, critical_exponent)
    tuned, wanted = batch_of_the_rate(tuned_batch_tokens, bound), batch_of_the_rate(tokens_per_step, bound)
    return {"critical_batch_tokens": bound, **rates(peak_lr, tuned, wanted)}


@calculation("3.13", "batch-doubled", "the rate when the batch is doubled", source=f"{_LINEAR}; {_ROOT}")
def batch_doubled(peak_lr: Num = 3e-4, factor: Num = 2.0) -> dict[str, Any]:
    """The linear rule keeps the expected step per token, the square-root rule the noise of Adam's step."""
    return rates(peak_lr, 1, factor)


@calculation(
    "3.10",
    "accumulation",
    "four micro-batches of 4 against one batch of 16",
    source="linearity of the mean",
    checked_against="gradients of one torch model, both ways (tests/planner/analysis/test_textbook_torch.py)",
)
def accumulation(sums: Vector = (8.0, -4.0, 6.0, 2.0), counts: Vector = (4.0, 4.0, 4.0, 4.0)) -> dict[str, Any]:
    """Each micro-batch's sum over the tokens of the whole batch gives the full gradient. The mean of means equals it
    only where every micro-batch has as many tokens: try --set counts=4,4,4,2."""
    tokens = sum(counts)
    means = [total / count for total, count in zip(sums, counts, strict=True)]
    return {
        "full": sum(sums) / tokens,
        "accumulated": sum(total / tokens for total in sums),
        "mean_of_means": sum(means) / len(means),
    }
