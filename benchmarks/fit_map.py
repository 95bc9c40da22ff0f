"""The most probable constants: a prior for each logarithm, and an absolute loss; a source of n rows weighs sqrt(n).

Errors are linearised in the logarithms of the constants and solved by iteratively reweighted least squares; the slopes
are taken again at each solution. numpy only.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

SCALE = 0.06  # of the loss: the error that one row has when the constants are right
FLOOR = 0.01  # below this error a row's weight no longer rises
STEP = 0.01  # of a logarithm, for slopes
BOUND = 2.5  # a constant moves by this many widths at most
OUTER, INNER = 2, 40

Vector = np.ndarray[tuple[int], np.dtype[np.float64]]
Matrix = np.ndarray[tuple[int, int], np.dtype[np.float64]]


@dataclass(frozen=True, slots=True)
class Problem:
    """Rows and constants. `errors`: the rows' signed errors for these logarithms over the literature values (0: those
    values); `groups`: the source of each row; `sigmas`: the width of each constant; `tops`: the largest logarithms."""

    errors: Callable[[Vector], Vector]
    groups: Sequence[str]
    sigmas: Vector
    tops: Vector


def row_weights(groups: Sequence[str]) -> Vector:
    """The weight of each row: sqrt(n) of its source, shared among the n."""
    counts = Counter(groups)
    return np.array([1 / math.sqrt(counts[group]) for group in groups])


def slopes(problem: Problem, at: Vector) -> Matrix:
    """The change of each row's error with each logarithm, rows by constants."""
    here, one = problem.errors(at), np.eye(len(at)) * STEP
    return np.stack([(problem.errors(at + step) - here) / STEP for step in one], axis=1)


def most_probable(problem: Problem, used: Sequence[bool], first: tuple[Vector, Matrix] | None = None) -> Vector:
    """Logarithms of the constants over their literature values, from the rows in `used`.

    first: errors and slopes at the literature values, where they are known: the same for every choice of rows.
    """
    keep = np.asarray(used)
    weights = row_weights([group for group, use in zip(problem.groups, used, strict=True) if use]) / SCALE
    at = np.zeros(len(problem.sigmas))
    for round in range(OUTER):
        errors, slope = first if first is not None and round == 0 else (problem.errors(at), slopes(problem, at))
        at = _solve(errors[keep] - slope[keep] @ at, slope[keep], weights, problem, at)
    return at


def _solve(constant: Vector, slope: Matrix, weights: Vector, problem: Problem, at: Vector) -> Vector:
    """The minimum of sum w |constant + slope x| + sum (x / sigma)^2 / 2, within BOUND widths and below the tops."""
    x, sigmas = at, problem.sigmas
    for _ in range(INNER):
        pulls = weights / np.maximum(np.abs(constant + slope @ x), FLOOR)
        left = slope.T @ (pulls[:, None] * slope) + np.diag(1 / sigmas**2)
        x = np.linalg.solve(left, -slope.T @ (pulls * constant))
        x = np.clip(x, -BOUND * sigmas, np.minimum(BOUND * sigmas, problem.tops))
    return x
