"""Step results are read, judged, and then either rolled back or recorded and evaluated."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from planner.config.loop import EvaluationConfig, GuardConfig
from planner.config.run import RunConfig
from planner.errors import PlanError
from reference_trainer.loop import results as loop_results
from reference_trainer.loop.results import WindowJudgement, judge
from reference_trainer.metrics.metrics_file import read_rows
from reference_trainer.step.spike_guard import NonFiniteCounter
from reference_trainer.step.step_results import StepResult

NAN = float("nan")
MakeConfig = Callable[..., RunConfig]


def step(number: int, loss: float = 5.0, loss_sigmas: float = 0.0, norm_sigmas: float = 0.0) -> StepResult:
    spike = max(loss_sigmas, norm_sigmas) > 6.0
    return StepResult(
        number, loss, 1.0, 1e-3, 0.1, loss == loss, 1.0, spike, loss_sigmas, norm_sigmas
    )  # NaN is unequal to itself


def judged(policy: Any, steps: list[StepResult], in_a_row: int = 0) -> tuple[list[int], int | None, bool, bool]:
    counter = NonFiniteCounter(3, in_a_row)
    config = SimpleNamespace(guard=GuardConfig(on_spike=policy))
    job: Any = SimpleNamespace(context=SimpleNamespace(config=config), nonfinite_counter=counter)
    found: WindowJudgement = judge(job, steps)
    assert counter.in_a_row == in_a_row, "judging counts nothing"
    return [s.step for s in found.spikes], found.rollback_step, found.past_streak, found.diverges


@pytest.mark.parametrize(
    ("policy", "steps", "in_a_row", "expected"),
    [
        ("rollback", [step(1), step(2)], 0, ([], None, True, False)),
        ("rollback", [step(1), step(2, loss_sigmas=9.0), step(3, loss_sigmas=8.0)], 0, ([2, 3], 2, False, False)),
        ("rollback", [step(1, norm_sigmas=9.0)], 0, ([1], None, True, False)),
        ("skip", [step(1, loss_sigmas=9.0)], 0, ([1], None, False, False)),
        ("rollback", [step(1, NAN), step(2, NAN), step(3, NAN)], 0, ([], 3, True, True)),
        ("rollback", [step(4, NAN)], 2, ([], 4, True, True)),
        ("rollback", [step(1, NAN), step(2, loss_sigmas=9.0), step(3, NAN)], 0, ([2], 2, False, False)),
        ("warn", [step(1, NAN), step(2, NAN), step(3, NAN)], 0, ([], None, False, True)),
    ],
)
def test_what_the_policy_says_of_a_window(policy: str, steps: Any, in_a_row: int, expected: Any) -> None:
    assert judged(policy, steps, in_a_row) == expected


def test_an_evaluation_that_fails_costs_no_row(
    tiny: MakeConfig, train: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, held_out: None
) -> None:
    def refuse(*_: Any) -> Any:
        raise PlanError("this machine ran out of memory in an evaluation", why="", remedy="")

    monkeypatch.setattr(loop_results, "evaluate", refuse)
    config = tiny(steps=6).model_copy(update={"evaluation": EvaluationConfig(every=3)})
    with pytest.raises(PlanError, match="in an evaluation"):
        train(config, log_every=3)
    assert [row["step"] for row in read_rows(tmp_path / "run/metrics.jsonl")] == [1, 2, 3]


def test_a_model_that_diverges_is_not_evaluated(
    tiny: MakeConfig, train: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, held_out: None
) -> None:
    read = loop_results.RunningJob.__dataclass_fields__["pending"].default_factory.read  # type: ignore[union-attr, attr-defined]

    def spoiled(self: Any) -> list[StepResult]:
        return [step(result.step, NAN) for result in read(self)]

    monkeypatch.setattr("reference_trainer.step.step_results.PendingSteps.read", spoiled)
    monkeypatch.setattr(loop_results, "evaluate", lambda *_: pytest.fail("it is evaluated"))
    config = tiny(steps=6).model_copy(update={"evaluation": EvaluationConfig(every=3)})
    result = None
    with pytest.raises(PlanError, match="not finite in 3 steps in a row"):
        result = train(config, log_every=3)
    assert result is None and [row["step"] for row in read_rows(tmp_path / "run/metrics.jsonl")] == [1, 2, 3]
