"""A rollback returns to a checkpoint, skips the data that spiked, lowers the learning rate, and has a budget."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner.config.loop import GuardConfig
from planner.errors import PlanError
from reference_trainer.step.rollbacks import Rollback, data_step, load_rollbacks, next_rollback, rate_factor
from tests.reference_trainer.step.spikes import MakeConfig, Train, garbage, guarded


def test_fault_11_a_rollback_passes_the_batches_by(
    tiny: MakeConfig, train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The spike of step 10 leads back to the checkpoint of step 8, past 5 steps of data, at half the rate."""
    seen = garbage(monkeypatch, {9 * 2})
    config = guarded(
        tiny(steps=14, accumulation=1, checkpoint_every=4), on_spike="rollback", rollback_skips=5, rollback_rate=0.5
    )
    result = train(config)
    assert result.finished and seen == [2 * k for k in (*range(10), *range(13, 19))]
    rows = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == list(range(1, 15)) and not any(row["spike"] for row in rows)
    assert [row["loss"] for row in rows] == result.losses
    assert load_rollbacks(tmp_path / "run/rollbacks.json") == (Rollback(10, 8, 5, 0.5),)
    plain = train(guarded(tiny(steps=14, accumulation=1, checkpoint_every=None)), "plain")
    assert [rate for _, rate in result.rates[:8]] == [rate for _, rate in plain.rates[:8]]
    assert [rate for _, rate in result.rates[8:]] == [rate / 2 for _, rate in plain.rates[8:]]


def test_fault_11_the_budget_ends_it(
    tiny: MakeConfig, train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    garbage(monkeypatch, set(range(18, 1000)), factor=50.0)
    config = guarded(
        tiny(steps=30, accumulation=1, checkpoint_every=4), on_spike="rollback", rollback_skips=2, rollback_budget=2
    )
    with pytest.raises(PlanError, match="another loss spike, or loss that is not finite, after 2 rollbacks") as caught:
        train(config)
    assert "budget is 2" in caught.value.why and len(load_rollbacks(tmp_path / "run/rollbacks.json")) == 2


def test_a_run_that_rolled_back_resumes_as_if_it_had_not_stopped(
    tiny: MakeConfig, train: Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = guarded(tiny(steps=14, accumulation=1, checkpoint_every=4), on_spike="rollback", rollback_skips=5)
    garbage(monkeypatch, {9 * 2})
    whole = train(config, "whole")
    train(config, stop_after=11)
    assert train(config, resume=True).losses == whole.losses[11:]


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(1, 9)), max_size=4), st.integers(1, 80))
def test_data_passed_by_never_comes_back(rolled: list[tuple[int, int]], step: int) -> None:
    rollbacks = [Rollback(to + 1, to, skipped, 0.5) for to, skipped in sorted(rolled)]
    assert data_step(rollbacks, step + 1) > data_step(rollbacks, step) >= step
    assert rate_factor(rollbacks, step) == 0.5 ** sum(step > r.to_step for r in rollbacks)


def test_a_rollback_skips_at_least_the_batch_that_spiked() -> None:
    assert next_rollback(GuardConfig(rollback_skips=2), (), 90, 50).skipped_steps == 40
