"""The learning-rate range test: exponentially rising rates, the smoothed loss, and the suggested rate.

Source: Smith 2015, "Cyclical Learning Rates for Training Neural Networks" (arXiv 1506.01186), section 3.3. That
the rate rises exponentially, and that the test ends where the loss explodes, is fastai's practice (Gugger 2018).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

LOWEST, HIGHEST, STEPS = 1e-7, 1e-1, 100
SMOOTHING = 0.9  # of an exponential mean, about ten steps of a hundred: a judgement
EXPLODED = 4.0  # times the lowest smoothed loss, fastai's rule
FALLS = 0.98  # of the first smoothed loss: above it nothing was learnt, and nothing is suggested
BELOW_MINIMUM = 10.0  # fastai's rule: the minimum itself is already too high, as the loss is about to rise


@dataclass(frozen=True, slots=True)
class RateSearch:
    """One test: per step the rate, the loss and the smoothed loss in nats per token; the resulting rates, or None.

    minimum_rate: where the smoothed loss is lowest. steepest_rate: where it falls fastest over the rate's logarithm.
    suggested_peak_lr: the smaller of the steepest rate and a tenth of the minimum's.
    """

    rates: tuple[float, ...]
    losses: tuple[float, ...]
    smoothed: tuple[float, ...]
    exploded: bool
    minimum_rate: float | None
    steepest_rate: float | None
    suggested_peak_lr: float | None
    note: str


def rates_between(low: float, high: float, steps: int) -> tuple[float, ...]:
    """`steps` rates from `low` to `high`, with a constant ratio."""
    return (*(low * (high / low) ** (i / (steps - 1)) for i in range(steps - 1)), high)


def smoothed(losses: Sequence[float], share: float = SMOOTHING) -> tuple[float, ...]:
    """Exponential mean of the losses, with bias correction as for Adam's moments."""
    mean, found = 0.0, []
    for k, loss in enumerate(losses, start=1):
        mean = share * mean + (1 - share) * loss
        found.append(mean / (1 - share**k))
    return tuple(found)


def has_exploded(losses: Sequence[float]) -> bool:
    """Whether the last loss is not finite, or the smoothed loss a multiple of its minimum."""
    if not math.isfinite(losses[-1]):
        return True
    curve = smoothed(losses)
    return curve[-1] > EXPLODED * min(curve)


def search_of(rates: Sequence[float], losses: Sequence[float]) -> RateSearch:
    """The result of a test; a loss that is not finite is left out. Rates rise exponentially, one per loss."""
    exploded = has_exploded(losses)
    kept = [loss for loss in losses if math.isfinite(loss)]
    used = tuple(rates[: len(kept)])
    curve = smoothed(kept)
    if len(curve) < 3 or min(curve) > FALLS * curve[0]:
        note = "the loss hardly falls at any of these rates: there is nothing to suggest"
        return RateSearch(used, tuple(kept), curve, exploded, None, None, None, note)
    lowest = curve.index(min(curve))
    # equal steps of the logarithm: the slope is the difference of neighbours on both sides
    slopes = {i: curve[i + 1] - curve[i - 1] for i in range(1, max(lowest, 2))}
    steepest = min(slopes, key=lambda i: slopes[i])
    minimum = used[lowest]
    note = "" if exploded or lowest < len(curve) - 1 else "the loss still falls at the highest rate: test higher ones"
    suggested = min(used[steepest], minimum / BELOW_MINIMUM)
    return RateSearch(used, tuple(kept), curve, exploded, minimum, used[steepest], suggested, note)


def csv_of(search: RateSearch) -> str:
    """CSV with one line per step: number, learning rate, loss, smoothed loss."""
    lines = ["step,learning_rate,loss,smoothed_loss"]
    rows = zip(search.rates, search.losses, search.smoothed, strict=True)
    lines += [f"{k},{rate!r},{loss!r},{mean!r}" for k, (rate, loss, mean) in enumerate(rows, start=1)]
    return "\n".join(lines) + "\n"
