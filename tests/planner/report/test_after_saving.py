"""A file that was written is offered for training only where the trainer takes it."""

from __future__ import annotations

import pytest

from planner.inputs.draft import draft
from planner.inputs.flags import Flags
from planner.report.after_saving import how_to_train
from reference_trainer.distributed.ranks import Ranks
from reference_trainer.loop.startup import last_step_of
from reference_trainer.step.options import RunOptions


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ({}, "train it with: gptplan run a.toml --out RUN_DIR"),
        ({"gpus": "8"}, "train it with: gptplan run a.toml --out RUN_DIR --nproc 8"),
        ({"gpus": "8", "pp": "2"}, "gptplan run does not run pp = 2; see it again with"),
    ],
)
def test_training_is_offered_where_the_trainer_takes_it(flags: dict[str, str], words: str) -> None:
    config = draft(Flags(params="125M", steps="10", gpu="h100-80gb", **flags), as_of="2026-11-21", version="test")
    said = how_to_train(config, "a.toml")
    assert said.startswith(words)
    try:
        last_step_of(config, RunOptions(device="cpu"), Ranks(world=config.hardware.gpus))
    except Exception:
        assert not said.startswith("train it")
    else:
        assert said.startswith("train it")


def test_an_architecture_that_is_only_planned() -> None:
    config = draft(Flags(model="gpt2", tokens="1B", gpu="h200"), as_of="2026-11-21", version="test")
    sinks = config.model.model_copy(update={"attention_sinks": True})
    said = how_to_train(config.model_copy(update={"model": sinks}), "a.toml")
    assert said == "gptplan run does not have attention sinks; see it again with: gptplan estimate --config a.toml"
