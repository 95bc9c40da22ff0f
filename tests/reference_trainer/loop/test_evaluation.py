"""Evaluations: the same samples each time, no effect on training, early stopping, and what is refused."""

from __future__ import annotations

import itertools
import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from planner.errors import ConfigError
from reference_trainer.data.samples import TokenData, batch, open_data
from reference_trainer.loop.evaluation import EvaluationProgress, evaluate, passes_of, refuse_unevaluated
from reference_trainer.loop.startup import build
from reference_trainer.model.losses import IGNORED_TARGET
from tests.reference_trainer.conftest import evaluated
from tests.reference_trainer.run_records import events
from tests.reference_trainer.step.spikes import MakeConfig, Train

CPU = torch.device("cpu")


def test_an_evaluation_is_the_mean_over_the_same_samples(tiny: MakeConfig, text: Path) -> None:
    config = evaluated(tiny(dropout=0.2), every=1, tokens=100)
    data = open_data(text, 256, 32)
    context = build(config, CPU, replace(data, validation=data))
    assert passes_of(config, data) == 2  # 100 tokens are two micro-batches of 64
    first = evaluate(context, lambda: False)
    assert first == evaluate(context, lambda: False) and context.model.training  # no dropout, and it is on again
    context.model.eval()
    with torch.no_grad():
        given = [context.source.micro_batch(1, micro) for micro in (0, 1)]
        parts = [context.model(b.ids, b.targets) for b in given]
    assert first == pytest.approx(float(sum(parts)) / 128, rel=1e-6)
    assert evaluate(context, lambda: True) is None


def test_fault_12_an_evaluation_of_masked_documents_is_the_mean_over_documents_that_stand_alone(
    tiny: MakeConfig,
) -> None:
    """Each document computed by itself, no target across a border, and every valid target has the same weight."""
    lengths = [*[0] * 25, 4, 30, 1, 1, 60, 7, 2, 90]  # so that samples have few valid targets or many
    random = np.random.default_rng(2)
    tokens = np.concatenate([[*random.integers(0, 63, n), 63] for n in lengths]).astype(np.uint16)
    data = TokenData(tokens, "", "", (len(tokens) - 1) // 32 * 32, end_of_text=63)
    masked = tiny(vocab=64, document_masking=True, position="rotary", micro_batch=3)
    config = evaluated(masked, every=1, tokens=1000)
    context = build(config, CPU, replace(data, validation=data))
    total, valid, seen = 0.0, [], set[int]()
    parts = [batch(data, config, 3 * index, 3) for index in range(passes_of(config, data))]
    with torch.no_grad():
        for part in parts:
            assert part.documents is not None
            valid.append(part.valid)
            for row, document in itertools.product(range(3), range(32)):
                inside = (part.documents[row] == document) & (part.targets[row] != IGNORED_TARGET)
                if inside.any():
                    seen.add(int(inside.sum()))
                    logits = context.model.logits(part.ids[row][inside][None])[0]
                    total += float(F.cross_entropy(logits, part.targets[row][inside], reduction="sum"))
    assert len(set(valid)) > 1 and len(seen) > 3, "the passes and the documents are unequal"
    found = evaluate(context, lambda: False)
    assert found == pytest.approx(total / sum(valid), rel=1e-5)


@pytest.mark.usefixtures("held_out")
def test_evaluations_do_not_change_the_run(tiny: MakeConfig, train: Train, tmp_path: Path) -> None:
    plain = train(tiny(dropout=0.1), "plain")
    result = train(evaluated(tiny(dropout=0.1), every=3, tokens=64))
    assert result.losses == plain.losses
    rows = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows if "validation_loss" in row] == [3, 6]
    assert [event["step"] for event in events(tmp_path / "run", "evaluation")] == [3, 6]


@pytest.mark.usefixtures("held_out")
def test_training_stops_when_no_evaluation_is_better(
    tiny: MakeConfig, train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    losses = iter([3.0, 2.0, 2.5, 2.0, 1.0])
    monkeypatch.setattr("reference_trainer.loop.results.evaluate", lambda *_: next(losses))
    said: list[str] = []
    config = evaluated(tiny(steps=20, checkpoint_every=None), every=2, patience=2)
    result = train(config, said=said)
    assert (result.steps_done, result.finished, result.exit_code) == (8, True, 0)
    assert "stopped early after step 8: the best validation loss was at step 4" in said
    assert (tmp_path / "run/checkpoints/step-00000004").is_dir()
    again: list[str] = []
    assert train(config, said=again, resume=True).losses == [] and "nothing is left to do" in again[-1]


def test_evaluations_without_held_out_data_are_refused(tiny: MakeConfig, text: Path) -> None:
    with pytest.raises(ConfigError, match="the data has no validation part"):
        refuse_unevaluated(evaluated(tiny(), every=2), open_data(text, 256, 32))


def test_a_loss_that_is_not_finite_is_never_the_best() -> None:
    progress = EvaluationProgress()
    assert [progress.add(step, loss) for step, loss in enumerate([math.nan, 2.0, math.nan, math.inf, 1.0])] == [
        False, True, False, False, True,
    ]  # fmt: skip
