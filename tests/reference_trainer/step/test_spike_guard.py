"""Spikes are found, skipped or rolled back from, within a budget; evaluations choose the best model and the end."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from planner.config.loop import EvaluationConfig, GuardConfig
from planner.config.run import RunConfig
from planner.errors import ConfigError, PlanError
from reference_trainer.data.samples import open_data
from reference_trainer.loop.evaluation import EvaluationProgress, evaluate, passes_of, refuse_unevaluated
from reference_trainer.loop.startup import build
from reference_trainer.metrics.records import RunResult
from reference_trainer.step.rollbacks import Rollback, data_step, load_rollbacks, next_rollback, rate_factor
from reference_trainer.step.spike_guard import SpikeGuard
from reference_trainer.step.step import train_step
from tests.examples import examples

MakeConfig = Callable[..., RunConfig]
Train = Callable[..., RunResult]
CPU = torch.device("cpu")


def guarded(config: RunConfig, **changes: Any) -> RunConfig:
    return config.model_copy(update={"guard": GuardConfig(spike_window=8, **changes)})


def evaluated(config: RunConfig, **changes: Any) -> RunConfig:
    return config.model_copy(update={"evaluation": EvaluationConfig(**changes)})


def events(folder: Path, kind: str) -> list[dict[str, Any]]:
    lines = (folder / "events.jsonl").read_text().splitlines()
    return [event for event in map(json.loads, lines) if event["event"] == kind]


def judged(guard: SpikeGuard, loss: float, norm: float = 1.0) -> tuple[bool, bool, float]:
    verdict = guard.judge(torch.tensor(loss), torch.tensor(norm))
    return bool(verdict.good), bool(verdict.spike), float(verdict.loss_sigmas)


@examples(30)
@given(st.lists(st.floats(0.5, 20.0), min_size=1, max_size=40))
def test_sigmas_are_those_of_the_last_window(losses: list[float]) -> None:
    guard = SpikeGuard(GuardConfig(spike_window=8), CPU)
    for index, loss in enumerate(losses):
        before = losses[max(0, index - 8) : index]
        *_, sigmas = judged(guard, loss)
        if index < 4:
            assert sigmas == 0.0
            continue
        mean = statistics.fmean(before)
        spread = max(statistics.pstdev(before), 1e-3 * mean)
        assert sigmas == pytest.approx((loss - mean) / spread, rel=1e-2, abs=1e-2)


def test_a_new_level_is_one_spike_and_no_number_at_all_is_none() -> None:
    guard = SpikeGuard(GuardConfig(spike_window=8, on_spike="skip"), CPU)
    for index in range(8):
        assert judged(guard, 3.0 + 0.01 * (index % 2))[:2] == (True, False)
    assert judged(guard, math.nan)[:2] == (False, False)
    assert judged(guard, 3.0, math.inf)[:2] == (False, False)
    assert judged(guard, 9.0)[:2] == (False, True)
    assert judged(guard, 9.0)[:2] == (True, False)
    assert judged(guard, 3.0, 50.0)[:2] == (False, True)  # by the gradient norm
    assert int(guard.count) == 11  # the two that were not finite are in no window


def garbage(monkeypatch: pytest.MonkeyPatch, samples: set[int], factor: float = 50.0) -> list[int]:
    """Steps whose first sample is in `samples` have a loss `factor` times too large; the samples seen, in order."""
    import reference_trainer.step.step as module

    batch, seen = module.batch, list[int]()

    class Scaled(torch.nn.Module):
        def __init__(self, inner: Any) -> None:
            super().__init__()
            self.inner = inner

        def forward(self, *args: Any) -> torch.Tensor:
            loss: torch.Tensor = self.inner(*args)
            return loss * factor if seen[-1] in samples else loss

    def noted(data: Any, config: RunConfig, start: int, count: int) -> Any:
        seen.append(start)
        return batch(data, config, start, count)

    step = module.train_step

    def wrapped(context: Any, number: int) -> Any:
        model = context.model
        context.model = Scaled(model)
        try:
            return step(context, number)
        finally:
            context.model = model

    monkeypatch.setattr(module, "batch", noted)
    monkeypatch.setattr("reference_trainer.train.train_step", wrapped)
    return seen


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


def test_fault_11_the_budget_ends_it(
    tiny: MakeConfig, train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    garbage(monkeypatch, set(range(18, 1000)), factor=50.0)
    config = guarded(
        tiny(steps=30, accumulation=1, checkpoint_every=4), on_spike="rollback", rollback_skips=2, rollback_budget=2
    )
    with pytest.raises(PlanError, match="another loss spike after 2 rollbacks") as caught:
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


# --- evaluations ------------------------------------------------------------------------------------------------------


@pytest.fixture
def held_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """The text serves as its own validation part."""

    def with_part(*args: Any, **_: Any) -> Any:
        data = open_data(*args)
        return replace(data, validation=data)

    monkeypatch.setattr("reference_trainer.loop.evaluation.open_data", with_part)


def test_an_evaluation_is_the_mean_over_the_same_samples(tiny: MakeConfig, text: Path) -> None:
    config = evaluated(tiny(dropout=0.2), every=1, tokens=100)
    data = open_data(text, 256, 32)
    context = build(config, CPU, replace(data, validation=data))
    assert passes_of(config, data) == 2  # 100 tokens are two micro-batches of 64
    first = evaluate(context, lambda: False)
    assert first == evaluate(context, lambda: False) and context.model.training  # no dropout, and it is on again
    context.model.eval()
    with torch.no_grad():
        given = [context.host_batch(1, micro) for micro in (0, 1)]
        parts = [context.model(b.ids, b.targets) for b in given]
    assert first == pytest.approx(float(sum(parts)) / 128, rel=1e-6)
    assert evaluate(context, lambda: True) is None


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
    monkeypatch.setattr("reference_trainer.loop.job.evaluate", lambda *_: next(losses))
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


# --- the host does not wait -------------------------------------------------------------------------------------------

READERS = ("item", "tolist", "numpy", "cpu", "__bool__", "__float__", "__int__", "__index__", "nonzero")


@pytest.mark.parametrize("log_every", [1, 4])
def test_the_loop_waits_for_the_device_once_in_a_log_interval(
    tiny: MakeConfig, train: Train, monkeypatch: pytest.MonkeyPatch, log_every: int
) -> None:
    """Whatever reads a tensor's value on the host would wait for a GPU: outside of `PendingSteps.read` nothing does."""
    from reference_trainer.step.step_results import PendingSteps

    reads, strays, read = list[int](), list[str](), PendingSteps.read
    inside = [False]

    def counted(self: PendingSteps) -> Any:
        if self.steps:
            reads.append(len(self.steps))
        inside[0] = True
        try:
            return read(self)
        finally:
            inside[0] = False

    def watched(name: str) -> Callable[..., Any]:
        original = getattr(torch.Tensor, name)

        def call(self: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
            if not inside[0]:
                strays.append(name)
            return original(self, *args, **kwargs)

        return call

    step = train_step

    def stepped(context: Any, number: int) -> Any:
        with monkeypatch.context() as patch:
            for name in READERS:
                patch.setattr(torch.Tensor, name, watched(name))
            return step(context, number)

    monkeypatch.setattr(PendingSteps, "read", counted)
    monkeypatch.setattr("reference_trainer.train.train_step", stepped)
    train(tiny(checkpoint_every=None, implementation="fused"), log_every=log_every)
    assert reads == [log_every] * (8 // log_every) and strays == []
