"""How much work one plan is: counted calls, never seconds (those are in benchmarks/estimate.py)."""

from __future__ import annotations

import sys
from collections import Counter
from dataclasses import replace
from types import FrameType

import pytest

from benchmarks.estimate import PLANS
from planner.config.model import ModelConfig
from planner.config.run import RunConfig
from planner.counts.by_model import by_model
from planner.inputs.draft import draft
from planner.plan import estimate

# Python functions called by one estimate without the replay, counted on Python 3.11, and a twentieth more. A
# number above means that something is computed again: look for it with cProfile before the limit is raised.
MOST_CALLS = {"gpt2": 5_200, "llama-3-8b, full checkpointing": 5_950, "deepseek-v3": 12_850}


def planned(name: str) -> RunConfig:
    """A config of the benchmark, which other tests may not have planned before."""
    return draft(replace(PLANS[name], runtime="eager"), as_of="2026-11-21", version="test")


def calls_of_estimate(config: RunConfig) -> Counter[str]:
    """Names of the Python functions that an estimate calls, and how often, once its files are read."""
    estimate(config)
    calls: Counter[str] = Counter()

    def watch(frame: FrameType, event: str, _: object) -> None:
        if event == "call":
            calls[frame.f_code.co_name] += 1

    before = sys.getprofile()
    sys.setprofile(watch)
    try:
        estimate(config)
    finally:
        sys.setprofile(before)
    return calls


@pytest.mark.parametrize("name", MOST_CALLS)
def test_an_estimate_computes_nothing_twice(name: str) -> None:
    calls = calls_of_estimate(planned(name))
    assert calls.total() <= MOST_CALLS[name], calls.most_common(12)
    # configs are told apart by identity: comparing or hashing their fields costs as much as the answers
    assert calls["__eq__"] == 0
    assert calls["hash_func"] <= 12


class Asked:
    """The layers of a model, and which models they were computed for."""

    def __init__(self) -> None:
        self.models: list[ModelConfig] = []

    def layers_of(self, model: ModelConfig) -> int:
        self.models.append(model)
        return model.layers


def test_what_depends_on_a_model_alone_is_computed_once_for_equal_models() -> None:
    first, second = planned("gpt2").model, planned("gpt2").model
    assert first == second and first is not second
    asked = Asked()
    layers_of = by_model(asked.layers_of)
    assert [layers_of(first), layers_of(second), layers_of(first)] == [12, 12, 12]
    assert asked.models == [first]
    assert layers_of(first.model_copy(update={"layers": 13})) == 13


def test_a_model_that_is_gone_never_answers_for_another() -> None:
    model, asked = planned("gpt2").model, Asked()
    layers_of = by_model(asked.layers_of)
    for layers in range(1, 201):  # each is freed at once, so that the next could get its id
        assert layers_of(model.model_copy(update={"layers": layers})) == layers
    assert len(asked.models) == 200
