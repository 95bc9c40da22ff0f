"""`gptplan run --nproc`: the same command for each rank, a run that torchrun starts again, what runs on one device."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from gptplan.ranks import run_as_ranks
from gptplan.request import Request, restarted
from planner.errors import ConfigError
from planner.inputs.run_toml import load_config, write_config
from tests.gptplan.calling import Call
from tests.reference_trainer.conftest import config_of


def test_each_rank_runs_the_same_command(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[Any] = []

    def launched(*args: Any) -> int:
        given.extend(args)
        return 143

    monkeypatch.setattr("reference_trainer.distributed.launch.launch", launched)
    monkeypatch.setattr(sys, "argv", ["gptplan", "run", "run.toml", "--out", "my run", "--nproc", "2"])
    request = Request(config_of(gpus=2), Path("my run"), False, None)
    assert run_as_ranks(request, 2) == 143
    command = [sys.executable, "-m", "gptplan", "run", "run.toml", "--out", "my run", "--nproc", "2"]
    assert given == [2, command, "gptplan run --resume 'my run' --nproc 2"]
    given.clear()
    with pytest.raises(ConfigError, match="for 2 GPUs, and this run has 4 ranks"):
        run_as_ranks(request, 4)
    assert not given, "no process was started"


def test_a_run_that_torchrun_starts_again_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the config of its directory: the machine that it was adapted to is in it."""
    request = Request(config_of(), tmp_path, False, None)
    assert restarted(request) is request, "the first start"
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    assert restarted(request) is request, "it failed before it had a directory"
    write_config(tmp_path / "config.toml", config_of(steps=9), overwrite=False)
    assert restarted(request) is request, "it failed before its first step"
    (tmp_path / "metrics.jsonl").write_text('{"step": 1}\n')
    again = restarted(request)
    assert again.resume and again.config == load_config(tmp_path / "config.toml")


@pytest.mark.parametrize("command", ["lr-find", "preflight", "trace"])
def test_what_runs_on_one_device_is_refused_to_ranks(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    write_config(tmp_path / "run.toml", config_of(), overwrite=False)
    values = {"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1", "MASTER_ADDR": "localhost", "MASTER_PORT": "1"}
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    call(command, str(tmp_path / "run.toml")).refused(f"{command} runs on one device, and this is rank 1 of 2")
