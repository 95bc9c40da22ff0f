"""`gptplan run --engine torchtitan`: built, checked, executed where installed (a stand-in here), else a message."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import IO

import pytest

from gptplan import engine_run
from tests.gptplan.calling import Call
from tests.planner.runs.logs.samples import LOGS

PLAN = ("plan", "--model", "tinyllama-1.1b", "--seq", "2048", "--gpu", "h100-80gb", "--micro-batch", "1",
        "--accumulation", "1", "--steps", "60", "-o", "run.toml")  # fmt: skip
CONFIG_PY = """\
class ConfigManager:
    def parse_args(self, words):
        assert words[:4] == ["--module", "gptplan_torchtitan", "--config", "run"], words
        text = open("gptplan_torchtitan.py").read()
        assert "'steps': 60" in text
        if "--wrong" in words:
            raise ValueError("unrecognised option --wrong")
"""
TRAIN_PY = """\
import os
import sys
import time
from pathlib import Path
from typing import IO
print(Path(__file__).with_name("log.txt").read_text())
if "--wait" in sys.argv:
    print("PID", os.getpid(), flush=True)
    time.sleep(60)
sys.exit(3 if "--fail" in sys.argv else 0)
"""


@pytest.fixture
def planned(call: Call, tmp_path: Path) -> Path:
    assert call(*PLAN).code == 0
    return tmp_path


@pytest.fixture
def installed(planned: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package called torchtitan that reads the module's text and prints a log; and a torch that sees one GPU."""
    site = planned / "site"
    package = site / "torchtitan"
    (package / "config").mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "config/__init__.py").write_text(CONFIG_PY)
    (package / "train.py").write_text(TRAIN_PY)
    (package / "log.txt").write_text(LOGS["torchtitan"])
    (site / "torchtitan-0.3.0.dist-info").mkdir()
    (site / "torchtitan-0.3.0.dist-info/METADATA").write_text(
        "Metadata-Version: 2.1\nName: torchtitan\nVersion: 0.3.0\n"
    )
    (site / "torch").mkdir()
    (site / "torch/__init__.py").write_text("")
    (site / "torch/cuda.py").write_text("def device_count():\n    return 1\n")
    (site / "torch/__init__.py").write_text("from torch import cuda\n")
    monkeypatch.setenv("PYTHONPATH", str(site))
    monkeypatch.setenv("PATH", os.defpath)  # launch.sh calls dirname
    monkeypatch.setattr(sys, "path", [*sys.path, str(site)])  # importlib.metadata looks there
    return planned


def test_without_the_engine_the_command_and_the_way_out_are_told(call: Call, planned: Path) -> None:
    call("run", "run.toml", "--out", "new", "--engine", "torchtitan").refused(
        "torchtitan is not installed", "-m torchtitan.train --module gptplan_torchtitan", "gptplan export run.toml"
    )
    assert not (planned / "new").exists()


def test_a_run_is_checked_started_logged_and_compared(call: Call, installed: Path) -> None:
    said = call("run", "run.toml", "--out", "new", "--engine", "torchtitan", "--engine-args", "--metrics.log_freq 1")
    assert said.code == 0 and "step: 60" in said.err and "the log of torchtitan" in said.out
    names = {path.name for path in (installed / "new").iterdir()}
    assert {"gptplan_torchtitan.py", "launch.sh", "EXPORT.md", "train.log"} <= names
    call("run", "run.toml", "--out", "new", "--engine", "torchtitan").refused("exists already")
    failed = call("run", "run.toml", "--out", "other", "--engine", "torchtitan", "--engine-args", "--fail", "--json")
    assert failed.code == 3 and json.loads(failed.out)["rows"]


def test_the_engine_ends_when_we_are_ended(call: Call, installed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pids: list[int] = []

    def ended(source: IO[bytes], log: IO[bytes]) -> None:
        for line in source:
            if line.startswith(b"PID"):
                pids.append(int(line.split()[1]))
                raise SystemExit(143)  # as our handler of SIGTERM does

    monkeypatch.setattr(engine_run, "_copied", ended)
    assert call("run", "run.toml", "--out", "new", "--engine", "torchtitan", "--engine-args", "--wait").code == 143
    with pytest.raises(ProcessLookupError):
        os.kill(pids[0], 0)


def test_what_the_engine_or_this_machine_refuses_writes_nothing(
    call: Call, installed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = ("run", "run.toml", "--out", "new", "--engine", "torchtitan")
    call(*run, "--engine-args", "--wrong").refused("refuses the run", "unrecognised option --wrong")
    call(*run, "--engine-args", "'open").refused("cut short")
    call(*run, "--data", "x", "--deterministic").refused("--data and --deterministic beside --engine")
    call("run", "run.toml", "--out", "new", "--engine", "jax").refused("unknown engine to run")
    call("run", "run.toml", "--out", "new", "--engine-args", "x").refused("--engine-args needs --engine")
    assert call("plan", "--config", "run.toml", "--gpus", "8", "--fsdp", "-o", "eight.toml").code == 0
    call("run", "eight.toml", *run[2:]).refused("8 GPUs are needed here, 1 are seen")
    assert call("plan", "--config", "run.toml", "--gpus", "16", "--fsdp", "-o", "nodes.toml").code == 0
    call("run", "nodes.toml", *run[2:]).refused("NODE_RANK and HEAD is not set")
    assert call("plan", "--config", "run.toml", "--dropout", "0.1", "-o", "dropout.toml").code == 0
    call("run", "dropout.toml", *run[2:]).refused("training.dropout = 0.1")
    assert not (installed / "new").exists()
