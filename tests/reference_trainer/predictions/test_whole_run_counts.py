"""What a plan counts of a run beside its steps is what the trainer does: evaluations, their passes, saves."""

from __future__ import annotations

import pytest

from planner.counts.run import resolve, steps_of
from planner.inputs.draft import draft
from planner.inputs.flags import Flags
from planner.plan import estimate
from planner.step_time.whole_run import evaluations_of, saves_of
from reference_trainer.checkpoint.retention import saves_ahead
from reference_trainer.loop.results import is_due


@pytest.mark.parametrize("steps", [1, 9, 10, 37])
@pytest.mark.parametrize("evaluates", [None, 1, 4, 10])
@pytest.mark.parametrize("saves", [None, 6, 10])
def test_evaluations_and_saves_are_those_of_the_trainer(steps: int, evaluates: int | None, saves: int | None) -> None:
    texts = {"eval_every": evaluates, "checkpoint_every": saves}
    typed = {name: str(every) for name, every in texts.items() if every is not None}
    flags = Flags(model="gpt2", steps=str(steps), gpu="h100-80gb", warmup_steps="0", micro_batch="4", **typed)
    config = draft(flags, as_of="2026-11-27", version="test")
    run = resolve(config)
    assert evaluations_of(run) == sum(is_due(evaluates, step) for step in range(1, steps_of(config) + 1))
    least, most = saves_of(config, steps)
    assert most == saves_ahead(config, 0, steps).saves == estimate(config).time.times["checkpoints"]
    never_best = config.model_copy(update={"evaluation": config.evaluation.model_copy(update={"every": None})})
    assert least == saves_ahead(never_best, 0, steps).saves
