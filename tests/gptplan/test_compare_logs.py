"""`gptplan compare --log` and `--profile` as a user calls them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.gptplan.calling import Call
from tests.planner.runs.logs.samples import LOGS
from tests.planner.runs.logs.test_trace import CUT

PLAN = ("plan", "--model", "gpt2", "--gpu", "h100-80gb", "--gpus", "8", "--micro-batch", "8", "--accumulation", "2",
        "--steps", "60", "-o", "run.toml")  # fmt: skip


@pytest.fixture
def planned(call: Call, tmp_path: Path) -> Path:
    assert call(*PLAN).code == 0
    (tmp_path / "log").write_text(LOGS["megatron-lm"])
    (tmp_path / "t.json").write_text(CUT)
    return tmp_path


def test_a_log_is_set_beside_its_plan(call: Call, planned: Path) -> None:
    said = call("compare", "--log", "log", "--config", "run.toml")
    assert said.code == 0 and "the log of Megatron-LM" in said.out and "step_seconds" in said.out
    assert "medians after the first 10 steps, 50 lines" in said.out and "torch" not in said.out
    found = json.loads(call("compare", "--log", "log", "--config", "run.toml", "--json").out)
    assert found["log"]["engine"] == "megatron-lm" and found["rows"][0]["verdict"] == "within"
    (planned / "log").write_text(LOGS["megatron-lm"].replace("/      60", "/     600"))
    said = call("compare", "--log", "log", "--config", "run.toml", "--strict")
    assert said.code == 1 and "outside tolerance: steps" in said.err
    first = next(line for line in said.out.splitlines() if "first_loss" in line)
    assert "exact" not in first and "unknown" in first  # a loss is shown and not judged


def test_a_trace_is_set_beside_its_plan(call: Call, planned: Path) -> None:
    said = call("compare", "--profile", "t.json", "--config", "run.toml")
    assert said.code == 0 and "a step, mean of 2" in said.out and "communication" in said.out
    found = json.loads(call("compare", "--profile", "t.json", "--config", "run.toml", "--json").out)
    assert found["steps"] == 2 and found["rows"][0]["name"]


def test_combinations_that_mean_nothing_are_refused(call: Call, planned: Path) -> None:
    call("compare").refused("nothing to compare")
    call("compare", "--log", "log").refused("--config is missing")
    call("compare", "run", "--config", "run.toml").refused("--config beside RUN_DIR")
    call("compare", "--log", "log", "--profile", "t.json", "--config", "run.toml").refused("--log and --profile")
    call("compare", "--profile", "t.json", "--config", "run.toml", "--from", "nanogpt").refused("--from needs --log")
    call("compare", "--log", "run.toml", "--config", "run.toml").refused("no steps")
