"""All calculations, by number and by name; importing this registers every topic."""

from __future__ import annotations

from planner.analysis.textbook import batches, budgets, chains, clipping, facts, loss, norms, optimizers, scores, shapes
from planner.analysis.textbook.register import CALCULATIONS, Calculation

TOPICS = (budgets, optimizers, clipping, batches, loss, scores, shapes, norms, chains, facts)


def find(key: str) -> Calculation | None:
    """The calculation of a number such as 3.1, or of a name; None where there is none."""
    if key in CALCULATIONS:
        return CALCULATIONS[key]
    return next((c for c in CALCULATIONS.values() if c.name == key), None)


def calculations() -> list[Calculation]:
    """All of them, in the order of their numbers."""
    return sorted(CALCULATIONS.values(), key=lambda c: [int(part) for part in c.id.split(".")])
