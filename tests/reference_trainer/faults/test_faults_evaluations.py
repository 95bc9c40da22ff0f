"""Evaluations and eval commands that were broken off are made up: nothing differs from a run without interruption."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from planner.config.loop import EvaluationConfig
from planner.config.run import RunConfig
from reference_trainer.loop import eval_command
from reference_trainer.loop import results as loop_results
from reference_trainer.loop.eval_command import CommandResult
from tests.reference_trainer.run_records import events
from tests.reference_trainer.step.spikes import MakeConfig, Train, garbage, guarded

pytestmark = pytest.mark.usefixtures("held_out")
LOSSES = (3.0, 2.0, 2.5, 2.25, 1.0)  # the third and fourth are not better: a patience of 2 ends the run


class Evaluations:
    """`evaluate` with the losses above, one after the other; a signal breaks some of them off."""

    def __init__(self, *broken: int) -> None:
        self.broken, self.done = list(broken), 0

    def __call__(self, context: Any, stopping: Callable[[], bool]) -> float | None:
        if self.done in self.broken:
            self.broken.remove(self.done)
            signal.raise_signal(signal.SIGTERM)
        if stopping():
            return None
        self.done += 1
        return LOSSES[self.done - 1]


def evaluating(config: RunConfig, **changes: Any) -> RunConfig:
    return config.model_copy(update={"evaluation": EvaluationConfig(**changes)})


def traces(run: Path) -> tuple[Any, ...]:
    """What must not depend on interruptions: rows, evaluations, checkpoints, and the progress in the last one."""
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    judged = [(row["step"], row["loss"], row.get("validation_loss")) for row in rows]
    found = [(event["step"], event["loss"], event["best"]) for event in events(run, "evaluation")]
    kept = sorted(path.name for path in (run / "checkpoints").iterdir())
    state = json.loads((run / "checkpoints" / kept[-1] / "state.json").read_text())
    return judged, found, kept, state["progress"], list(rows[1])


@pytest.mark.parametrize("steps, every, patience", [(20, 2, 2), (8, 2, None), (4, 4, None)])
@pytest.mark.parametrize("broken", [(0,), (1,), (3,), (0, 0, 1, 2, 3)])
def test_fault_41_a_broken_off_evaluation_is_made_up(
    tiny: MakeConfig, train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    steps: int, every: int, patience: int | None, broken: tuple[int, ...],
) -> None:  # fmt: skip
    """At any of them, the same one twice, and in the evaluation of the last step."""
    if broken[0] * every >= steps:
        pytest.skip("the run has no such evaluation")
    config = evaluating(tiny(steps=steps, checkpoint_every=every), every=every, patience=patience)
    monkeypatch.setattr(loop_results, "evaluate", Evaluations())
    whole = train(config, "whole")
    broken = tuple(one for one in broken if (one + 1) * every <= steps)
    monkeypatch.setattr(loop_results, "evaluate", Evaluations(*broken))
    codes = [train(config).exit_code]
    while codes[-1] and len(codes) < 9:
        result = train(config, resume=True)
        codes.append(result.exit_code)
    assert codes == [143] * len(broken) + [0]
    assert traces(tmp_path / "run") == traces(tmp_path / "whole")
    assert result.steps_done == whole.steps_done and len(events(tmp_path / "run", "finished")) == 1


@pytest.fixture
def commanded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The steps that the eval command was run on."""
    ran: list[int] = []
    monkeypatch.setattr(eval_command, "run_command", lambda command, root, step, *_: _ran(ran, step))
    return ran


def _ran(ran: list[int], step: int) -> CommandResult:
    ran.append(step)
    return CommandResult({"accuracy": 0.5}, "", 0.1)


def test_fault_41_a_broken_off_eval_command_is_made_up(
    tiny: MakeConfig, train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, commanded: list[int]
) -> None:
    def stopped(command: str, root: Path, step: int, *_: Any) -> CommandResult:
        signal.raise_signal(signal.SIGINT)
        return CommandResult({}, "stopped because the run stops", 0.1)

    with monkeypatch.context() as patch:
        patch.setattr(eval_command, "run_command", stopped)
        assert train(tiny(), eval_command="judge").exit_code == 130
    assert [event["step"] for event in events(tmp_path / "run", "eval command stopped")] == [2]
    assert not events(tmp_path / "run", "eval command failed")
    assert train(tiny(), eval_command="judge", resume=True, stop_after=5).steps_done == 5
    assert train(tiny(), eval_command="judge", resume=True).finished
    assert commanded == [2, 4, 5, 6, 8]
    assert train(tiny(), eval_command="judge", resume=True).finished and len(commanded) == 5


def test_fault_41_killed_between_a_save_and_its_eval_command(
    tiny: MakeConfig, train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, commanded: list[int]
) -> None:
    def killed(*_: Any) -> CommandResult:
        raise RuntimeError("as a kill: nothing is written after it")

    with monkeypatch.context() as patch, pytest.raises(RuntimeError):
        patch.setattr(eval_command, "run_command", killed)
        train(tiny(), eval_command="judge")
    assert train(tiny(), eval_command="judge", resume=True).finished
    assert commanded == [2, 4, 6, 8]


def test_fault_41_a_step_that_is_trained_again_is_judged_again(
    tiny: MakeConfig, train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, commanded: list[int]
) -> None:
    """The spike of step 10 leads back to step 8; step 9 was evaluated, and has other data now."""
    garbage(monkeypatch, {9 * 2})
    losses = iter(range(1, 20))
    monkeypatch.setattr(loop_results, "evaluate", lambda *_: float(next(losses)))
    config = guarded(tiny(steps=12, accumulation=1, checkpoint_every=4), on_spike="rollback")
    train(evaluating(config, every=3), eval_command="judge")
    assert len(events(tmp_path / "run", "rollback")) == 1
    assert commanded == [3, 4, 6, 8, 9, 9, 12]
