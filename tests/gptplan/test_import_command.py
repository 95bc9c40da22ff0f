"""`gptplan import` as a user calls it."""

from __future__ import annotations

import json
from pathlib import Path

from planner.engines.importing import READERS
from tests.gptplan.calling import Call

CONFIG = "batch_size = 8\ngradient_accumulation_steps = 4\nmax_iters = 1000\nlr_decay_iters = 1000\n"
CONFIG += "warmup_iters = 100\nodd = 1\n"


def test_a_file_becomes_a_run_toml_and_its_estimate(call: Call, tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text(CONFIG)
    said = call("import", "train.py", "--gpu", "h100-80gb", "--gpus", "2", "-o", "run.toml")
    assert said.code == 0 and "not read: odd = 1" in said.err and "nanogpt, 1 settings" in said.out
    planned = json.loads(call("estimate", "--config", "run.toml", "--json").out)
    found = json.loads(call("import", "train.py", "--gpu", "h100-80gb", "--gpus", "2", "--json").out)
    assert found["memory"] == planned["memory"] and found["unread"] == ["odd = 1"] and found["engine"] == "nanogpt"
    call("import", "train.py", "-o", "run.toml").refused("exists already")
    again = call("import", "train.py", "--gpu", "cpu", "-o", "run.toml", "--force")
    assert again.code == 0 and 'gpu = "cpu"' in (tmp_path / "run.toml").read_text()


def test_what_cannot_be_read_is_one_message(call: Call, tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text(CONFIG)
    call("import", "nowhere.py").refused("does not exist")
    call("import", "train.py", "--from", "jax").refused("unknown engine")
    call("import", "train.py", "--gpu", "h1000").refused("h1000")
    call("import", "train.py", "--gpus", "few").refused("--gpus")
    assert all(name in " ".join(call("import", "--help").out.split()) for name in READERS)
