"""Normalisation, and gradients of what is broadcast."""

from __future__ import annotations

from typing import Any

from planner.analysis.textbook.register import Matrix, Vector, calculation
from planner.formulas.ops import Num, sqrt


@calculation(
    "5.8",
    "batch-norm",
    "BatchNorm of 2, 1, 3, 4 with gain 2 and shift 1; a batch of one",
    source="Ioffe and Szegedy 2015 (arXiv 1502.03167), algorithm 1: the variance is the population's",
    checked_against="torch.nn.functional.batch_norm",
)
def batch_norm(
    values: Vector = (2.0, 1.0, 3.0, 4.0), gain: Num = 2.0, shift: Num = 1.0, eps: Num = 1e-8
) -> dict[str, Any]:
    """Less the mean, over the root of the variance, then gain and shift. What equals the mean is the shift, whatever
    eps is, and a batch of one is its own mean. PyTorch's eps is 1e-5, which shows in the fifth digit."""

    def normed(batch: Vector) -> list[Num]:
        mean = sum(batch) / len(batch)
        apart = [x - mean for x in batch]
        root = sqrt(sum(x**2 for x in apart) / len(batch) + eps)
        return [(gain * x / root if x != 0 else 0) + shift for x in apart]

    return {"normed": normed(values), "batch_of_one": normed(values[:1])[0]}


@calculation(
    "5.18",
    "batch-norm-running-mean",
    "BatchNorm's running mean after batches of means 2.5, 3 and 2, from 0",
    source="PyTorch's torch.nn.BatchNorm1d: momentum is the weight of the new value; Ioffe and Szegedy 2015 "
    "(arXiv 1502.03167) and most texts: of the old one",
    checked_against="torch.nn.BatchNorm1d",
)
def batch_norm_running_mean(batch_means: Vector = (2.5, 3.0, 2.0), new_share: Num = 0.1) -> dict[str, Any]:
    """One number, two meanings: PyTorch's momentum of 0.1 keeps nine tenths of the old mean, that of the text keeps
    one tenth."""
    by_pytorch = by_text = 0 * new_share
    for mean in batch_means:
        by_pytorch = (1 - new_share) * by_pytorch + new_share * mean
        by_text = new_share * by_text + (1 - new_share) * mean
    return {"by_pytorch": by_pytorch, "by_text": by_text}


@calculation(
    "5.9",
    "rms-norm",
    "RMSNorm of 3, 4",
    source="Zhang and Sennrich 2019 (arXiv 1910.07467), equation 4",
    checked_against="torch.nn.functional.rms_norm",
)
def rms_norm(values: Vector = (3.0, 4.0), gain: Num = 1.0, eps: Num = 0.0) -> dict[str, Any]:
    """Over the root of the mean square; no mean is taken off and no shift added."""
    root = sqrt(sum(x * x for x in values) / len(values) + eps)
    return {"normed": [gain * x / root for x in values]}


@calculation(
    "5.15",
    "bias-gradient",
    "gradient of a bias that is broadcast over the batch",
    source="a value used n times gets the sum of n gradients",
    checked_against="torch's autograd over a linear layer",
)
def bias_gradient(upstream: Matrix = ((0.1, -0.2), (0.3, 0.4), (-0.5, 0.6))) -> dict[str, Any]:
    """The sum of the outputs' gradients over all rows."""
    return {"bias_gradient": [sum(column) for column in zip(*upstream, strict=True)]}
