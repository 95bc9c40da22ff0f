"""`gptplan export --to` as a user calls it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from planner.engines.export import ENGINES
from tests.gptplan.calling import Call

PLAN = ("plan", "--model", "gpt2", "--vocab", "50304", "--tokens", "1B", "--gpu", "h100-80gb", "--gpus", "8",
        "--recipe", "autocast", "-o", "run.toml")  # fmt: skip


@pytest.fixture
def planned(call: Call, tmp_path: Path) -> Path:
    assert call(*PLAN).code == 0
    return tmp_path


def test_a_config_is_exported_and_nothing_is_overwritten(call: Call, planned: Path) -> None:
    said = call("export", "run.toml", "--to", "nanogpt", "-o", "out", "--launcher", "slurm")
    assert said.code == 0 and "nanoGPT" in said.out and "otherwise there" in said.out
    names = {path.name for path in (planned / "out").iterdir()}
    assert names == {"gptplan_nanogpt.py", "launch.sh", "job.slurm", "EXPORT.md"}
    (planned / "out/launch.sh").write_text("mine")
    call("export", "run.toml", "--to", "nanogpt", "-o", "out").refused("exists already")
    assert (planned / "out/launch.sh").read_text() == "mine"
    found = json.loads(call("export", "run.toml", "--to", "nanogpt", "-o", "out", "--force", "--json").out)
    assert found["engine"] == "nanogpt" and "launch.sh" in found["files"] and found["carried"]["model.layers"]
    assert (planned / "out/launch.sh").read_text() != "mine"


def test_what_an_engine_cannot_express_writes_nothing(call: Call, planned: Path) -> None:
    assert call("plan", "--config", "run.toml", "--mlp", "swiglu", "-o", "other.toml").code == 0
    call("export", "other.toml", "--to", "nanogpt", "-o", "out").refused("model.mlp = swiglu")
    call("export", "run.toml", "--to", "torchtitam", "-o", "out").refused("unknown engine")
    call("export", "run.toml", "-o", "out", "--launcher", "slurm").refused("--launcher needs --to")
    call("export", "run.toml", "-o", "out", "--force").refused("--force needs --to")
    call("export", "run.toml", "--to", "nanogpt", "-o", "run.toml/x").refused("cannot be made")
    assert not (planned / "out").exists()


def test_help_names_every_engine(call: Call) -> None:
    text = " ".join(call("export", "--help").out.split())
    assert all(name in text for name in ENGINES)
