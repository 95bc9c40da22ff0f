"""What a config comes to is asked once a plan, and the answers agree with each other."""

from __future__ import annotations

from collections import Counter

import pytest

from planner.config.run import RunConfig
from planner.counts import run as counts
from planner.counts.run import resolve, steps_of, tokens_per_step
from planner.errors import UnknownNameError
from planner.formulas.recording import recorded
from planner.inputs.draft import draft
from planner.inputs.flags import Flags
from planner.plan import estimate


def config_of(**words: str) -> RunConfig:
    flags = {"model": "gpt2", "tokens": "1B", "gpu": "a100-80gb", "gpus": "8", "accumulation": "4"} | words
    return draft(Flags(**flags), as_of="2026-11-21", version="test")


def test_a_plan_computes_its_steps_and_tokens_once() -> None:
    config = config_of(micro_batch="8")
    _, calls = recorded(lambda: estimate(config))
    made = Counter(call.formula.name for call in calls)
    for name in ("sequences_per_step", "tokens_per_step", "whole_steps", "trained_tokens"):
        assert made[name] == 1, (name, made[name])


def test_a_plan_resolves_its_config_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[RunConfig] = []

    def counting(config: RunConfig) -> counts.Resolved:
        asked.append(config)
        return resolve(config)

    monkeypatch.setattr("planner.plan.resolve", counting)
    estimate(config_of(micro_batch="8"))
    assert len(asked) == 1


@pytest.mark.parametrize("length", [{"tokens": "1B"}, {"tokens": None, "steps": "777"}])
def test_the_answers_agree(length: dict[str, str]) -> None:
    config = config_of(micro_batch="8", **length)
    run = resolve(config)
    assert run.gpu is not None and run.gpu.id == "a100-80gb" and run.recipe.id == config.training.recipe
    assert run.sequences_per_step == 8 * 4 * 8 and run.tokens_per_step == 256 * config.training.seq
    assert (run.steps, run.tokens_per_step) == (steps_of(config), tokens_per_step(config))
    assert run.trained_tokens == run.steps * run.tokens_per_step
    assert run.requested_tokens == (config.training.tokens or run.trained_tokens)
    assert run.nominal_parameters == run.parameters.total == 124_439_808


def test_a_processor_is_no_card_and_an_unknown_card_is_refused() -> None:
    config = config_of(micro_batch="8")
    hardware = config.hardware
    assert resolve(config.model_copy(update={"hardware": hardware.model_copy(update={"gpu": "cpu"})})).gpu is None
    with pytest.raises(UnknownNameError):
        resolve(config.model_copy(update={"hardware": hardware.model_copy(update={"gpu": "h1000"})}))
