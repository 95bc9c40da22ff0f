"""`gptplan export` as a user calls it, on a stored checkpoint of the first format."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.gptplan.calling import Call

STORED = Path(__file__).parents[1] / "data/checkpoint_format_1/run"


def test_a_run_is_exported(call: Call, tmp_path: Path) -> None:
    said = call("export", str(STORED), "-o", "out")
    assert said.code == 0 and said.err == ""
    assert "gpt2" in said.out and "float32, step 3" in said.out
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["config.json", "model.safetensors"]
    one = call("export", str(STORED / "checkpoints/step-00000003"), "-o", "again", "--json")
    found = json.loads(one.out)
    assert (found["model_type"], found["step"], found["padding_rows"]) == ("gpt2", 3, 0)
    assert found["size_bytes"] == sum(path.stat().st_size for path in (tmp_path / "again").iterdir())
    estimated = call("estimate", "--hf-config", "out/config.json", "--safetensors", "out/model.safetensors",
                     "--tokens", "1M", "--seq", "16", "--gpu", "cpu", "--json")  # fmt: skip
    assert estimated.code == 0, estimated.err
    assert "weights_match" in estimated.out  # our own reader of other people's files finds it whole


@pytest.mark.parametrize("words", [("nowhere", "-o", "out"), (str(STORED / "checkpoints"), "-o", "out")])
def test_what_is_no_checkpoint_is_one_message(call: Call, words: tuple[str, ...]) -> None:
    call("export", *words).refused("holds no checkpoint")


def test_nothing_is_overwritten(call: Call, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out/mine").write_text("mine")
    call("export", str(STORED), "-o", "out").refused("exists already")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["mine"]


def test_a_changed_config_is_refused_before_time_is_spent(call: Call, tmp_path: Path) -> None:
    """A continuation obeys the config.toml of its run directory: what may be changed there is a table."""
    import shutil

    run = Path(shutil.copytree(STORED, tmp_path / "run"))
    text, data = (run / "config.toml").read_text(), str(STORED.parent / "text.txt")
    (run / "config.toml").write_text(text.replace("seed = 7", "seed = 8"))
    call("run", "--resume", "run", "--data", data).refused("training.seed was 7, is now 8", "config.toml")
    (run / "config.toml").write_text(text.replace("steps = 6", "steps = 7", 1))
    call("run", "--resume", "run", "--data", data).refused("training.steps was 6, is now 7", "--new-schedule")
    call("run", "run/config.toml", "--out", "new", "--new-schedule").refused("--new-schedule belongs to --resume")
    assert not (run / "run.lock").exists() and not (tmp_path / "new").exists()
    assert sorted(path.name for path in run.iterdir()) == [
        "checkpoints",
        "config.toml",
        "events.jsonl",
        "metrics.jsonl",
    ]
