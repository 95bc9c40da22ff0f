"""Results that depend on a model alone, kept with it."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, wraps
from typing import TypeVar

from planner.config.model import ModelConfig

OfModel = TypeVar("OfModel")
MOST_MODELS = 64


def by_model(compute: Callable[[ModelConfig], OfModel]) -> Callable[[ModelConfig], OfModel]:
    """`compute`, called once for equal models.

    A plan asks dozens of times for the same object's shape and tensors: it is found by its identity, for hashing and
    comparing the fields of a config takes as long as some of the answers.
    """
    of_equal = lru_cache(maxsize=MOST_MODELS)(compute)
    seen: dict[int, tuple[ModelConfig, OfModel]] = {}  # with the model, so that no other can get its id

    @wraps(compute)
    def result_of(model: ModelConfig) -> OfModel:
        found = seen.get(id(model))
        if found is not None:
            return found[1]
        if len(seen) >= MOST_MODELS:
            seen.clear()
        result = of_equal(model)
        seen[id(model)] = model, result
        return result

    return result_of
