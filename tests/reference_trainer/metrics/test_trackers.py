"""Trackers log the rows of metrics.jsonl, each step once, also after a resume and a rollback."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from planner.config.run import RunConfig
from reference_trainer.metrics import trackers
from reference_trainer.metrics.records import RunResult

MakeConfig = Callable[..., RunConfig]
Train = Callable[..., RunResult]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_tensorboard_has_each_step_once_after_a_resume(
    tiny: MakeConfig, train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("tensorboard", reason="an optional tracker")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    monkeypatch.setattr(trackers, "PATIENCE", 60.0)  # its import is slow on a busy machine
    config = tiny(steps=8, checkpoint_every=4)
    train(config, stop_after=6, trackers=("tensorboard",))
    for checkpoint in (tmp_path / "run/checkpoints").glob("step-00000006"):
        checkpoint.rename(tmp_path / "lost")  # as after a crash: steps 5 and 6 are done again
    train(config, resume=True, trackers=("tensorboard",))
    drawn = EventAccumulator(str(tmp_path / "run/tensorboard")).Reload()
    rows = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    for name in ("loss", "lr", "updated"):
        points = [(point.step, point.value) for point in drawn.Scalars(name)]
        assert points == [(row["step"], pytest.approx(float(row[name]))) for row in rows]
    assert "mfu" not in drawn.Tags()["scalars"]  # null is a gap


class Recorder:
    """Stands for trackio and wandb, whose calls are recorded in order."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, Any]] = []

    def init(self, **settings: Any) -> Recorder:
        self.calls.append(("init", settings))
        return self

    def log(self, points: dict[str, float], step: int) -> None:
        self.calls.append(("log", step))
        assert all(isinstance(value, float) for value in points.values()) and "loss" in points

    def finish(self) -> None:
        self.calls.append(("finish", None))
        exec("print('view it')", sys.modules["trackio"].__dict__ if "trackio" in sys.modules else {"print": len})

    def Settings(self, **settings: Any) -> SimpleNamespace:
        return SimpleNamespace(**settings)


@pytest.mark.parametrize("name", ["trackio", "wandb"])
def test_the_others_leave_out_what_was_drawn_before(
    tiny: MakeConfig,
    train: Train,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    capfd: pytest.CaptureFixture[str],
) -> None:
    recorder, module = Recorder(), ModuleType(name)
    for call in ("init", "log", "finish", "Settings"):
        setattr(module, call, getattr(recorder, call))
    monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr("reference_trainer.train.check_trackers", lambda names: None)
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "elsewhere"))  # the user's own choice stands
    config = tiny(steps=8, checkpoint_every=4)
    train(config, stop_after=6, trackers=(name,))
    (tmp_path / "run/checkpoints/step-00000006").rename(tmp_path / "lost")
    train(config, resume=True, trackers=(name,))
    assert [step for call, step in recorder.calls if call == "log"] == list(range(1, 9))
    assert [call for call, _ in recorder.calls if call != "log"] == ["init", "finish"] * 2
    said = capfd.readouterr()
    assert said.out == "" and ("view it" in said.err) == (name == "trackio")  # stdout is data
    settings = recorder.calls[0][1]
    assert settings["config"]["tokens_per_step"] == 128
    assert settings.get("mode", "offline") == "offline" and settings["name"] == "run"
