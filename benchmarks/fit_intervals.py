"""Widths of the predicted interval from errors of held-out sources: one residual class per kind of plan.

Conformal over sources: a width is the factor that holds LEVEL (1 + 1 / k) of the rows of a class with k sources, each
source weighing the square root of its rows. LEVEL is the one number chosen by looking at the held-out coverage, so that
80 to 84 % of the rows lie inside, on one GPU and on several, compiled or not. A class with fewer than ENOUGH sources
takes those of all classes with as many devices; then all. `situation` says what a user may not know: the generation of
software, kernels published for the card, or both.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import tomlkit

from benchmarks.accuracy_speed import ScoredSpeed
from benchmarks.fit_constants import FILE
from benchmarks.fit_map import Vector
from planner.config.run import RunConfig
from planner.rules import rules
from planner.step_time.rates import interval_class

LEVEL = 0.73
ENOUGH = 3
CLASSES = ("one-eager", "one-compiled", "many-eager", "many-compiled")
# situation: (is the software known, are there kernels of the card)
SITUATIONS = {"known": (True, True), "software": (False, True), "card": (True, False), "neither": (False, False)}
Table = dict[str, dict[str, float]]


def class_of(one: ScoredSpeed) -> str:
    """The interval class of a row."""
    return interval_class(one.case.config)


def in_situation(config: RunConfig, situation: str, newest: str) -> RunConfig:
    """The config as it is planned by somebody who does not know the generation: with the newest."""
    known, _ = SITUATIONS[situation]
    if known:
        return config
    hardware = config.hardware.model_copy(update={"software": newest})
    return config.model_copy(update={"hardware": hardware})


@contextmanager
def cards_unknown(situation: str) -> Iterator[None]:
    """Within it no card has a family, if the situation says so."""
    _, known = SITUATIONS[situation]
    families = rules("time")["family"]
    before = [family["gpus"] for family in families]
    try:
        for family in families:
            family["gpus"] = family["gpus"] if known else []
        yield
    finally:
        for family, gpus in zip(families, before, strict=True):
            family["gpus"] = gpus


def quantile(errors: Vector, groups: Sequence[str]) -> float:
    """The absolute error below which LEVEL (1 + 1 / k) of the rows lie, a source of n rows weighing sqrt(n)."""
    names, counts = np.unique(np.asarray(groups), return_counts=True)
    weight = dict(zip(names.tolist(), (1 / np.sqrt(counts)).tolist(), strict=True))
    order = np.argsort(np.abs(errors))
    weights = np.array([weight[group] for group in groups])[order]
    level = min(1.0, LEVEL * (1 + 1 / len(names)))
    place = int(np.searchsorted(np.cumsum(weights), level * float(weights.sum()) - 1e-9))
    return float(np.abs(errors)[order][min(place, len(order) - 1)])


def width_of(name: str, classes: Sequence[str], groups: Sequence[str], errors: Vector) -> float:
    """The half-width of a class, as a logarithm."""
    devices = name.partition("-")[0]
    for fits in (lambda c: c == name, lambda c: c.startswith(devices), lambda c: True):
        members = [i for i, one in enumerate(classes) if fits(one)]
        mine = [groups[i] for i in members]
        if len(set(mine)) >= ENOUGH or len(members) == len(classes):
            return quantile(errors[members], mine)
    raise AssertionError("the last choice is all rows")


def widths_of(classes: Sequence[str], groups: Sequence[str], errors: dict[str, Vector]) -> Table:
    """The factor of each class in each situation; who knows less has no narrower interval."""
    found: Table = {}
    for situation in SITUATIONS:
        found[situation] = {}
        for name in CLASSES:
            width = math.exp(width_of(name, classes, groups, errors[situation]))
            less = tuple(found) if situation == "neither" else ("known",)
            found[situation][name] = max(width, *(found[known].get(name, 1.0) for known in less if known in found))
    return found


def held_out_coverage(classes: Sequence[str], groups: Sequence[str], errors: Vector) -> dict[str, dict[str, float]]:
    """The fraction of rows inside intervals whose widths never saw their source: of all rows, and of some kinds."""
    inside = np.zeros(len(groups), dtype=bool)
    for group in sorted(set(groups)):
        others = [i for i, one in enumerate(groups) if one != group]
        known = [classes[i] for i in others], [groups[i] for i in others], errors[others]
        for i, one in enumerate(groups):
            if one == group:
                inside[i] = abs(errors[i]) <= width_of(classes[i], *known)
    kinds = {
        "all": lambda c: True,
        "one GPU": lambda c: c.startswith("one"),
        "several GPUs": lambda c: c.startswith("many"),
    }
    kinds |= {"compiled": lambda c: c.endswith("compiled"), "not compiled": lambda c: c.endswith("eager")}
    found = {}
    for name, fits in kinds.items():
        members = [i for i, one in enumerate(classes) if fits(one)]
        found[name] = {"rows": len(members), "coverage": float(inside[members].mean()) if members else math.nan}
    return found


def write_widths(widths: Table) -> None:
    """Put the widths into time.toml; everything else in the file stays."""
    document: Any = tomlkit.parse(FILE.read_text(encoding="utf-8"))
    for situation, by_class in widths.items():
        for name, width in by_class.items():
            document["interval"][situation][name] = round(width, 3)
    FILE.write_text(tomlkit.dumps(document), encoding="utf-8")
