"""Spikes are found in loss and gradient norm, against mean and spread of the last window; policies warn and skip."""

from __future__ import annotations

import json
import math
import statistics
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from planner.config.loop import GuardConfig
from reference_trainer.step.rollbacks import load_rollbacks
from reference_trainer.step.spike_guard import SpikeGuard
from tests.examples import examples
from tests.reference_trainer.run_records import events
from tests.reference_trainer.step.spikes import MakeConfig, Train, garbage, guarded

CPU = torch.device("cpu")


def judged(guard: SpikeGuard, loss: float, norm: float = 1.0) -> tuple[bool, bool, float]:
    verdict = guard.judge(torch.tensor(loss), torch.tensor(norm))
    return bool(verdict.good), bool(verdict.spike), float(verdict.loss_sigmas)


@examples(30)
@given(st.lists(st.floats(0.5, 20.0), min_size=1, max_size=40))
def test_sigmas_are_those_of_the_last_window(losses: list[float]) -> None:
    guard, entered = SpikeGuard(GuardConfig(spike_window=8), CPU), list[float]()
    for index, loss in enumerate(losses):
        before = entered[-8:]
        *_, sigmas = judged(guard, loss)
        if index < 4:
            assert sigmas == 0.0
            entered.append(loss)
            continue
        mean = statistics.fmean(before)
        spread = max(statistics.pstdev(before), 1e-3 * mean)
        assert sigmas == pytest.approx((loss - mean) / spread, rel=1e-2, abs=1e-2)
        entered.append(min(loss, mean + 6 * spread))


def test_a_spike_is_above_the_limit_not_at_it() -> None:
    guard = SpikeGuard(GuardConfig(spike_window=8, spike_sigmas=4), CPU)
    for index in range(8):  # mean 4, deviation 2: all exact
        judged(guard, 2.0 + 4.0 * (index % 2), 8.0)
    assert judged(guard, 12.0, 8.0) == (True, False, 4.0)


def test_fault_43_the_guard_stays_sharp_after_an_outlier() -> None:
    """One loss of 300 among 3s would raise the deviation to 26: nothing below 180 would be a spike for 128 steps."""
    guard = SpikeGuard(GuardConfig(spike_window=128), CPU)
    for index in range(128):
        judged(guard, 3.0 + 0.1 * (index % 2))
    for outlier in (300.0, 30.0, 6.0):
        assert judged(guard, outlier)[1], outlier
        assert not judged(guard, 3.1)[1]


def test_fault_43_a_new_level_becomes_usual() -> None:
    for size in (8, 128):
        guard = SpikeGuard(GuardConfig(spike_window=size), CPU)
        for index in range(size):
            judged(guard, 3.0 + 0.1 * (index % 2))
        spikes = [judged(guard, 9.0 + 0.1 * (index % 2))[1] for index in range(2 * size)]
        assert spikes[0] and not any(spikes[size:])


def test_fault_43_another_window_begins_fresh(
    tiny: MakeConfig, train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the old count the new window would count as full of zeros, and the next loss would be a spike."""
    config = guarded(tiny(steps=12, accumulation=1, checkpoint_every=4))
    train(config, stop_after=8)
    said: list[str] = []
    other = config.model_copy(update={"guard": config.guard.model_copy(update={"spike_window": 12})})
    assert train(other, said=said, resume=True).finished
    assert any("guard.count, guard.window begin fresh" in line for line in said)
    assert not events(tmp_path / "run", "spike")


def test_a_spike_is_a_spike_again_and_no_number_at_all_is_none() -> None:
    guard = SpikeGuard(GuardConfig(spike_window=8, on_spike="skip"), CPU)
    for index in range(8):
        assert judged(guard, 3.0 + 0.01 * (index % 2))[:2] == (True, False)
    assert judged(guard, math.nan)[:2] == (False, False)
    assert judged(guard, 3.0, math.inf)[:2] == (False, False)
    assert judged(guard, 9.0)[:2] == (False, True)
    assert judged(guard, 9.0)[:2] == (False, True)
    assert judged(guard, 3.0, 50.0)[:2] == (False, True)  # by the gradient norm
    assert int(guard.count) == 11  # the two that were not finite are in no window


def test_warn_says_so_and_goes_on(
    tiny: MakeConfig, train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    garbage(monkeypatch, {9 * 2})
    said: list[str] = []
    config = guarded(tiny(steps=12, accumulation=1, checkpoint_every=None))
    result = train(config, said=said)
    assert result.finished and [e["step"] for e in events(tmp_path / "run", "spike")] == [10]
    assert any("step 10: spike" in line and "policy: warn" in line for line in said)
    rows = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert [row["updated"] for row in rows] == [True] * 12


def test_fault_11_skip_leaves_the_weights(
    tiny: MakeConfig, train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    garbage(monkeypatch, {9 * 2})
    train(guarded(tiny(steps=12, accumulation=1, checkpoint_every=None), on_spike="skip"))
    rows = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows if not row["updated"]] == [10]
    assert rows[9]["spike"] and rows[9]["loss_sigmas"] > 6


def test_a_gradient_norm_alone_leaves_its_update_out_and_rolls_nothing_back(
    tiny: MakeConfig, train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Norms have long tails, and clipping bounds what they do: a run of 2M parameters had two at 8 and 9 sigmas."""
    judge, calls = SpikeGuard.judge, list[int]()

    def loud(self: SpikeGuard, loss: torch.Tensor, norm: torch.Tensor) -> Any:
        calls.append(1)
        return judge(self, loss, norm * 50 if len(calls) == 10 else norm)

    monkeypatch.setattr(SpikeGuard, "judge", loud)
    said: list[str] = []
    train(guarded(tiny(steps=12, accumulation=1, checkpoint_every=4), on_spike="rollback"), said=said)
    rows = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows if not row["updated"]] == [10] and rows[9]["norm_sigmas"] > 6
    assert load_rollbacks(tmp_path / "run/rollbacks.json") == ()
    assert any("step 10: spike" in line and "the update was skipped" in line for line in said)
