"""Signals at awkward moments, terminals that close, devices that break, machines that lack something."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from planner.config.run import RunConfig
from planner.errors import PlanError
from reference_trainer.device.os_signals import StopSignals
from reference_trainer.metrics.records import RunResult
from reference_trainer.model.gpt import GPT
from reference_trainer.step.step import train_step
from tests.reference_trainer.conftest import evaluated

MakeConfig = Callable[..., RunConfig]
Train = Callable[..., RunResult]


def checkpoints(out: Path) -> list[str]:
    return sorted(path.name for path in (out / "checkpoints").iterdir())


@pytest.mark.usefixtures("held_out")
def test_fault_21_a_signal_in_an_evaluation_breaks_it_off_and_saves(
    tiny: MakeConfig, train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = evaluated(tiny(checkpoint_every=None), every=3, tokens=512)
    whole = train(config, "whole")
    forward, seen = GPT.forward, list[int]()

    def signalled(self: GPT, *args: Any) -> torch.Tensor:
        if not self.training:
            seen.append(1)
            if len(seen) == 2:
                signal.raise_signal(signal.SIGTERM)
        return forward(self, *args)

    with monkeypatch.context() as patch:
        patch.setattr(GPT, "forward", signalled)
        result = train(config)
    assert (result.exit_code, result.steps_done) == (143, 3) and len(seen) == 2
    assert checkpoints(tmp_path / "run") == ["step-00000003"]
    rows = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [1, 2, 3] and "validation_loss" not in rows[-1]
    assert train(config, resume=True).losses == whole.losses[3:]


def test_fault_21_a_signal_in_a_save_lets_it_finish(
    tiny: MakeConfig, train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rename, once = os.rename, list[int]()

    def signalled(old: Any, new: Any) -> None:
        if not once:
            once.append(1)
            signal.raise_signal(signal.SIGINT)
        rename(old, new)

    monkeypatch.setattr(os, "rename", signalled)
    result = train(tiny())
    assert (result.exit_code, result.steps_done) == (130, 2)
    assert checkpoints(tmp_path / "run") == ["step-00000002"]


def test_fault_21_sigusr1_saves_and_training_goes_on(
    tiny: MakeConfig, train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def signalled(context: Any, step: int) -> Any:
        if step == 3:
            signal.raise_signal(signal.SIGUSR1)
        return train_step(context, step)

    monkeypatch.setattr("reference_trainer.train.train_step", signalled)
    result = train(tiny(checkpoint_every=None))
    assert result.finished and result.exit_code == 0
    assert checkpoints(tmp_path / "run") == ["step-00000003", "step-00000008"]


def test_fault_22_a_terminal_that_closes_changes_nothing(
    tiny: MakeConfig, train: Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    def signalled(context: Any, step: int) -> Any:
        signal.raise_signal(signal.SIGHUP)
        return train_step(context, step)

    monkeypatch.setattr("reference_trainer.train.train_step", signalled)
    assert train(tiny(steps=2)).finished
    with StopSignals() as watch:
        signal.raise_signal(signal.SIGHUP)
        assert not watch.stopping()


@pytest.mark.parametrize("step", [1, 4])
def test_fault_28_nothing_is_saved_after_an_error_of_the_gpu(
    tiny: MakeConfig, train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    message = "CUDA error: an illegal memory access was encountered\nCUDA kernel errors may be reported late"

    def broken(context: Any, number: int) -> Any:
        if number == step:
            raise RuntimeError(message)
        return train_step(context, number)

    config = tiny(checkpoint_every=2)
    with monkeypatch.context() as patch:
        patch.setattr("reference_trainer.train.train_step", broken)
        with pytest.raises(PlanError, match="the GPU failed") as caught:
            train(config)
    assert "an illegal memory access" in caught.value.why and "--resume" in (caught.value.remedy or "")
    folder = tmp_path / "run/checkpoints"
    assert (checkpoints(tmp_path / "run") if folder.exists() else []) == (["step-00000002"] if step == 4 else [])
    assert train(config, resume=True).losses == train(config, "whole").losses[2 * (step == 4) :]


def test_fault_34_without_a_gpu_a_gpu_is_refused(tiny: MakeConfig, train: Train, tmp_path: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has one")
    with pytest.raises(PlanError, match="there is no device 'cuda' here") as caught:
        train(tiny(), device="cuda")
    assert "--device cpu" in caught.value.remedy and not (tmp_path / "run").exists()


def test_fault_34_an_unwritable_home_is_no_obstacle_to_plan(child_environment: dict[str, str], tmp_path: Path) -> None:
    """Nor does planning import torch: a machine without it can plan."""
    code = (
        "import sys; sys.argv = ['gptplan', 'estimate', '--params', '125M', '--tokens', '10B', '--json']\n"
        "sys.modules['torch'] = None\nfrom gptplan.app import main; main()"
    )
    environment = child_environment | {"HOME": "/proc/none", "XDG_CACHE_HOME": "/proc/none/cache"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["model"]["parameters"]["total"] > 0
