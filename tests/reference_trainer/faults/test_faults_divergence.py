"""Runs whose loss is not finite: what was measured is kept, and the policy `rollback` leads past the data."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from planner.errors import PlanError
from reference_trainer import execute as execution
from reference_trainer.step.options import RunOptions
from tests.reference_trainer.run_records import events
from tests.reference_trainer.step.spikes import MakeConfig, Train, garbage, guarded


@pytest.fixture(autouse=True)
def no_calibration(monkeypatch: pytest.MonkeyPatch) -> None:
    """The machine is not measured."""
    monkeypatch.setattr(execution, "adapt_to_device", lambda config, device, log: config)


def executed(config: Any, run: Path, text: Path) -> None:
    execution.execute(config, run, False, RunOptions(device="cpu", data_path=text), lambda line: None)


def test_fault_42_a_run_that_diverged_has_its_report(
    tiny: MakeConfig, text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    garbage(monkeypatch, {4 * n for n in range(3, 8)}, math.nan)  # steps 4 to 8
    with pytest.raises(PlanError, match="not finite in 3 steps in a row") as caught:
        executed(tiny(), tmp_path / "run", text)
    assert 'on_spike = "rollback"' in caught.value.remedy
    measured = json.loads((tmp_path / "run/measurement.json").read_text())
    assert (measured["steps_done"], measured["finished"], measured["last_loss"]) == (6, False, None)
    assert measured["first_loss"] > 0
    assert "→ not finite nats per token" in (tmp_path / "run/report.md").read_text()
    assert (tmp_path / "run/post-mortem.md").exists() and (tmp_path / "run/comparison.json").exists()


def test_fault_42_a_run_that_diverged_without_a_checkpoint_says_so(
    tiny: MakeConfig, train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    garbage(monkeypatch, {4 * n for n in range(3, 8)}, math.nan)  # steps 4 to 8
    with pytest.raises(PlanError, match="not finite in 3 steps in a row") as caught:
        train(tiny(checkpoint_every=None))
    assert not list((tmp_path / "run/checkpoints").glob("step-*"))
    assert "no checkpoint was written" in caught.value.why and "--checkpoint-every" in caught.value.remedy
    with pytest.raises(PlanError) as caught:
        train(tiny(), "saved")
    assert "the last checkpoint are still finite" in caught.value.why


def test_fault_42_a_last_loss_that_is_not_finite_is_null(
    tiny: MakeConfig, text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    garbage(monkeypatch, {4 * 3}, math.nan)
    executed(tiny(steps=4), tmp_path / "run", text)
    assert json.loads((tmp_path / "run/measurement.json").read_text())["last_loss"] is None
    assert "→ not finite nats per token" in (tmp_path / "run/report.md").read_text()


def test_fault_42_three_that_are_not_finite_roll_back_past_their_data(
    tiny: MakeConfig, train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    samples = {2 * n for n in (8, 9, 10)}  # steps 9 to 11; the checkpoint of step 10 lies among them
    seen = garbage(monkeypatch, samples, math.nan)
    config = guarded(tiny(steps=14, accumulation=1, checkpoint_every=5), on_spike="rollback")
    result = train(config)
    assert result.finished and all(map(math.isfinite, result.losses[10:])) and len(result.losses) == 14
    (rollback,) = events(tmp_path / "run", "rollback")
    assert (rollback["step"], rollback["spike_step"]) == (10, 11)
    assert [seen.count(sample) for sample in sorted(samples)] == [1, 1, 1]  # none is trained on again


def test_fault_42_the_budget_of_rollbacks_ends_it(
    tiny: MakeConfig, train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    garbage(monkeypatch, {2 * n for n in range(8, 4000)}, math.nan)
    config = guarded(tiny(steps=40, accumulation=1, checkpoint_every=5), on_spike="rollback")
    config = config.model_copy(update={"guard": config.guard.model_copy(update={"rollback_budget": 2})})
    with pytest.raises(PlanError, match=r"not finite, after 2 rollbacks"):
        train(config)
    assert len(events(tmp_path / "run", "rollback")) == 2
