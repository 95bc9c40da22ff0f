"""Asynchronous saves (fault 29 of docs/reference/faults.md), loop state in a save, and which checkpoints are kept."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import textwrap
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

from planner.config.loop import CheckpointConfig
from planner.config.run import RunConfig
from planner.errors import CheckpointError, FileError
from reference_trainer.checkpoint import checkpoint
from reference_trainer.checkpoint.atomic import publish
from reference_trainer.checkpoint.checkpoint import State, load, state_of
from reference_trainer.checkpoint.retention import SavesAhead, delete_after, prune, saves_ahead
from reference_trainer.checkpoint.saver import MAX_FAILURES, Saver, SaveReport
from reference_trainer.measure.measure import build_model
from reference_trainer.metrics.records import RunResult
from reference_trainer.optim.updater import Updater, make_optimizer
from tests.examples import examples
from tests.reference_trainer.harm import events, hashes, names

MakeConfig = Callable[..., RunConfig]
Train = Callable[..., RunResult]
BESIDE = CheckpointConfig(asynchronous=True)


class Held:
    """`save_file`, which waits until it is let go."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.real, self.reached, self.free = checkpoint.save_file, threading.Event(), threading.Event()
        self.threads: set[str] = set()
        monkeypatch.setattr(checkpoint, "save_file", self)

    def __call__(self, tensors: Any, path: Path) -> None:
        self.threads.add(threading.current_thread().name)
        self.reached.set()
        assert self.free.wait(30)
        self.real(tensors, path)


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> Iterator[Held]:
    """Writing stops until the test lets it go on."""
    made = Held(monkeypatch)
    yield made
    made.free.set()


def updater_of(config: RunConfig) -> Updater:
    torch.manual_seed(1)
    return make_optimizer(build_model(config), config)


def state(config: RunConfig, step: int, **progress: float | None) -> State:
    return state_of(config, "data", step, 128 * step, progress, "a device")


def test_fault_29_what_is_written_is_of_its_step(tiny: MakeConfig, tmp_path: Path, held: Held) -> None:
    config, told = tiny(), list[SaveReport]()
    updater, window = updater_of(config), torch.arange(4.0)
    then = {name: w.detach().clone() for name, w in updater.weights.items()}
    with Saver(tmp_path, updater, BESIDE, lambda: {"window": window}, told.append) as saver:
        saver.save(state(config, 1))
        assert held.reached.wait(30) and not told
        saver.check()  # in flight: nothing to tell of yet
        assert not told and saver.saved_step is None and names(tmp_path) == [".tmp-step-00000001"]
        with torch.no_grad():
            for w in updater.weights.values():
                w.add_(1.0)
            window.zero_()
        held.free.set()
    assert [(report.step, report.error) for report in told] == [(1, None)]
    stored = load_file(tmp_path / "step-00000001/model.safetensors")
    assert all(torch.equal(stored[name], w) for name, w in then.items())
    assert load_file(tmp_path / "step-00000001/extra.safetensors")["window"].tolist() == [0.0, 1.0, 2.0, 3.0]
    assert all(name.startswith("checkpoint") for name in held.threads)


def test_fault_29_the_next_save_waits_for_the_one_in_flight(tiny: MakeConfig, tmp_path: Path, held: Held) -> None:
    config, told = tiny(), list[SaveReport]()
    with Saver(tmp_path, updater_of(config), BESIDE, dict, told.append) as saver:
        saver.save(state(config, 1))
        assert held.reached.wait(30)
        second = threading.Thread(target=saver.save, args=(state(config, 2),))
        second.start()
        second.join(0.3)
        assert second.is_alive() and names(tmp_path) == [".tmp-step-00000001"]  # held back, nothing of it begun
        held.free.set()
        second.join(30)
        assert not second.is_alive() and [report.step for report in told] == [1]
    assert [report.step for report in told] == [1, 2] and saver.saved_step == 2


def test_fault_29_a_writer_that_raises_leaves_nothing_and_is_told_of(
    tiny: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, told = tiny(), list[SaveReport]()
    folder = tmp_path / "checkpoints"
    real = checkpoint.save_file

    def breaks(tensors: Any, path: Path) -> None:
        if path.name == "optimizer.safetensors":
            raise RuntimeError("a bug in the writer")
        real(tensors, path)

    with Saver(folder, updater_of(config), BESIDE, dict, told.append) as saver:
        saver.save(state(config, 1))
        saver._pending.result()  # type: ignore[union-attr]
        good = hashes(folder)
        monkeypatch.setattr(checkpoint, "save_file", breaks)
        saver.save(state(config, 2))
        saver._pending.result()  # type: ignore[union-attr]
        assert [report.step for report in told] == [1]
        saver.check()  # the next step
        assert [report.step for report in told] == [1, 2] and saver.failed and saver.saved_step == 1
        assert told[1].error is not None and "RuntimeError: a bug in the writer" in told[1].error.why
        assert told[1].size_bytes is None and hashes(folder) == good and names(folder) == ["step-00000001"]
        monkeypatch.undo()
        saver.save(state(config, 3))
    assert not saver.failed and saver.saved_step == 3


@pytest.mark.parametrize("asynchronous", [False, True])
def test_fault_29_failures_in_a_row_stop_the_run(
    tiny: MakeConfig, train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asynchronous: bool
) -> None:
    config = tiny(checkpoint_every=1).model_copy(update={"checkpoints": CheckpointConfig(asynchronous=asynchronous)})
    train(config, stop_after=1)
    good = hashes(tmp_path / "run/checkpoints")

    def refuse(tensors: Any, path: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint, "save_file", refuse)
    with pytest.raises(FileError, match=f"{MAX_FAILURES} checkpoints in a row could not be written") as caught:
        train(config, resume=True)
    assert "No space left" in caught.value.why and "--resume" in caught.value.remedy
    assert events(tmp_path / "run").count("checkpoint failed") == MAX_FAILURES
    assert hashes(tmp_path / "run/checkpoints") == good


def test_fault_29_the_last_save_may_not_fail(tiny: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(tensors: Any, path: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint, "save_file", refuse)
    with (
        pytest.raises(FileError, match="checkpoint of step 1 could not be written"),
        Saver(tmp_path, updater_of(tiny()), BESIDE, dict, lambda report: None) as saver,
    ):
        saver.save(state(tiny(), 1))


def test_fault_29_an_error_on_its_way_is_not_hidden(tiny: MakeConfig, tmp_path: Path, held: Held) -> None:
    told: list[SaveReport] = []
    with pytest.raises(ZeroDivisionError), Saver(tmp_path, updater_of(tiny()), BESIDE, dict, told.append) as saver:
        saver.save(state(tiny(), 1))
        held.free.set()
        _ = 1 / 0
    assert [report.step for report in told] == [1] and names(tmp_path) == ["step-00000001"]


EXITS = textwrap.dedent(
    """
    import sys, time
    from pathlib import Path
    from planner.config.run import RunConfig
    from planner.config.loop import CheckpointConfig
    from reference_trainer.checkpoint import checkpoint
    from reference_trainer.measure.measure import build_model
    from reference_trainer.checkpoint.saver import Saver
    from reference_trainer.optim.updater import make_optimizer

    config, real = RunConfig.model_validate_json(sys.argv[1]), checkpoint.save_file

    def slow(tensors, path):
        time.sleep(0.2)
        real(tensors, path)

    checkpoint.save_file = slow
    updater = make_optimizer(build_model(config), config)
    saver = Saver(Path(sys.argv[2]), updater, CheckpointConfig(asynchronous=True), dict, print)
    saver.save(checkpoint.state_of(config, "data", 1, 128))
    sys.exit(7)
    """
)


def test_fault_29_the_process_waits_for_a_save_in_flight(
    tiny: MakeConfig, tmp_path: Path, child_environment: dict[str, str]
) -> None:
    command = [sys.executable, "-c", EXITS, tiny().model_dump_json(), str(tmp_path / "checkpoints")]
    done = subprocess.run(command, env=child_environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 7, done.stderr
    assert names(tmp_path / "checkpoints") == ["step-00000001"]


def test_a_run_that_saves_beside_training_is_the_same_run(tiny: MakeConfig, train: Train, tmp_path: Path) -> None:
    beside = tiny().model_copy(update={"checkpoints": BESIDE})
    whole = train(tiny(), "whole")
    parts = [train(beside, stop_after=3), train(beside, resume=True)]
    assert [loss for part in parts for loss in part.losses] == whole.losses
    one, other = (tmp_path / name / "checkpoints/step-00000008/model.safetensors" for name in ("whole", "run"))
    assert one.read_bytes() == other.read_bytes()


def test_weights_that_are_not_finite_are_refused_at_once(tiny: MakeConfig, tmp_path: Path) -> None:
    updater = updater_of(tiny())
    with Saver(tmp_path, updater, BESIDE, dict, lambda report: None) as saver:
        updater.weights["norm.bias"].data[3] = torch.nan
        with pytest.raises(CheckpointError, match=r"the weights after step 1: norm\.bias is not finite"):
            saver.save(state(tiny(), 1))
    assert names(tmp_path) == []


def test_what_the_loop_keeps_comes_back(tiny: MakeConfig, tmp_path: Path) -> None:
    config, updater = tiny(), updater_of(tiny())
    with Saver(
        tmp_path, updater, CheckpointConfig(), lambda: {"guard.window": torch.arange(3.0)}, lambda report: None
    ) as saver:
        saver.save(state(config, 2, best_loss=1.25, best_step=2, worst=float("inf"), none=None))
    extra, said = {"guard.window": torch.zeros(3), "guard.count": torch.zeros(())}, list[str]()
    found = load(tmp_path / "step-00000002", updater, state(config, 0), extra, said.append)
    assert found.progress == {"best_loss": 1.25, "best_step": 2, "worst": None, "none": None}
    assert extra["guard.window"].tolist() == [0.0, 0.0, 0.0]  # all or none: half a state is a wrong one
    assert said == ["step-00000002 has no guard.count of the shape in use: guard.count, guard.window begin fresh"]
    load(tmp_path / "step-00000002", updater, state(config, 0), window := {"guard.window": torch.zeros(3)}, said.append)
    assert window["guard.window"].tolist() == [0.0, 1.0, 2.0]
    other = {"guard.window": torch.full((4,), 5.0)}  # another window in the config
    load(tmp_path / "step-00000002", updater, state(config, 0), other, said.append)
    assert other["guard.window"].tolist() == [5.0] * 4 and "guard.window" in said[-1]


# --- which stay -------------------------------------------------------------------------------------------------------


def standing(folder: Path) -> list[int]:
    return [int(name.removeprefix("step-")) for name in names(folder)]


def filled(folder: Path, *steps: int) -> Path:
    for step in steps:
        publish(folder, step, lambda new: (new / "state").write_text("s"))
    return folder


def test_newest_majors_and_the_best_stay(tmp_path: Path) -> None:
    folder = filled(tmp_path / "c", *range(1, 11))
    pruned = prune(folder, 10, CheckpointConfig(keep=2, keep_every=4), best_step=3)
    assert standing(folder) == [3, 4, 8, 9, 10] and len(pruned.deleted) == 5 and pruned.failed == ()


def test_one_that_is_cut_short_is_not_counted_among_the_newest(tmp_path: Path) -> None:
    folder = filled(tmp_path / "c", 1, 2, 3, 4)
    (folder / "step-00000003/state").write_text("")
    prune(folder, 4, CheckpointConfig(keep=2))
    assert standing(folder) == [2, 3, 4]  # 2 and 4 are whole


def test_what_lies_after_a_rollback_is_dropped(tmp_path: Path) -> None:
    folder = filled(tmp_path / "c", 2, 4, 6)
    assert [path.name for path in delete_after(folder, 2).deleted] == ["step-00000004", "step-00000006"]
    assert standing(folder) == [2]


def test_saves_to_come(tiny: MakeConfig) -> None:
    config = tiny(steps=10, checkpoint_every=3)
    assert saves_ahead(config, 0, 10) == SavesAhead(4, 4)  # 3, 6, 9, 10
    assert saves_ahead(config, 6, 10, [3, 6]) == SavesAhead(2, 4)
    assert saves_ahead(config, 10, 10, [9, 10]) == SavesAhead(0, 2)
    assert saves_ahead(tiny(steps=10, checkpoint_every=None), 0, 10) == SavesAhead(1, 1)
    best = config.model_copy(update={"evaluation": config.evaluation.model_copy(update={"every": 2})})
    assert saves_ahead(best, 0, 10).saves == 7  # also 2, 4, 8: each may be the best so far


@examples(25)
@given(data=st.data())
def test_never_more_stand_at_once_than_was_said(tiny: MakeConfig, data: st.DataObject) -> None:
    """Against real folders and the deletion itself, with the best evaluation drawn at every save."""
    every = st.none() | st.integers(1, 4)
    steps, keep_every = data.draw(st.integers(1, 14)), data.draw(every)
    config = tiny(steps=steps, checkpoint_every=data.draw(every))
    kept = CheckpointConfig(keep=data.draw(st.integers(1, 3)), keep_every=keep_every)
    evaluation = config.evaluation.model_copy(update={"every": data.draw(every)})
    config = config.model_copy(update={"checkpoints": kept, "evaluation": evaluation})
    due = {steps} | {
        step
        for one in (config.training.checkpoint_every, evaluation.every)
        if one is not None
        for step in range(one, steps, one)
    }
    with tempfile.TemporaryDirectory() as place:
        best, most = None, 0
        for step in sorted(due):
            if evaluation.every is not None and step % evaluation.every == 0 and data.draw(st.booleans()):
                best = step
            elif step != steps and not (
                config.training.checkpoint_every and step % config.training.checkpoint_every == 0
            ):
                continue  # an evaluation that is not the best saves nothing
            filled(Path(place), step)
            most = max(most, len(standing(Path(place))))
            prune(Path(place), step, kept, best)
    said = saves_ahead(config, 0, steps).at_once
    assert most <= said and (most == said or evaluation.every is not None)
