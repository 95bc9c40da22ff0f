"""What every score has: errors by source group, their medians, and the counted reasons of rows left out."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Sequence
from statistics import median
from typing import Any


def percentile(values: Sequence[float], share: float) -> float:
    """The value below which `share` of the sorted values lie, interpolated between neighbours (numpy's default)."""
    ordered = sorted(values)
    place = share * (len(ordered) - 1)
    below = math.floor(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (place - below)


def error_groups(found: Sequence[tuple[str, float]]) -> dict[str, Any]:
    """Of (source group, signed error): the absolute errors of each group, and the medians over groups."""
    by_group: dict[str, list[float]] = defaultdict(list)
    for name, error in found:
        by_group[name].append(abs(error))
    groups: list[dict[str, Any]] = [
        {
            "source_group": name,
            "n": len(errors),
            "median": median(errors),
            "p90": percentile(errors, 0.9),
            "worst": max(errors),
        }
        for name, errors in sorted(by_group.items())
    ]
    return {
        "groups": groups,
        "median_of_group_medians": median(g["median"] for g in groups) if groups else None,
        "median_of_group_p90": median(g["p90"] for g in groups) if groups else None,
    }


def counted_reasons(reasons: Sequence[str]) -> dict[str, int]:
    """How many rows each reason left out, the most frequent first."""
    return dict(Counter(reasons).most_common())
