"""`preflight`, `lr-find` and `sample` as commands: exit codes, JSON, and no files left behind."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import jsonschema
import pytest
import torch

from planner.inputs.run_toml import load_config
from planner.report.schemas import schemas
from reference_trainer.preflight import preflight as module
from reference_trainer.step.options import RunOptions
from reference_trainer.train import run
from tests.gptplan.calling import Call

SHAPE = ("--layers", "1", "--hidden", "16", "--heads", "1", "--vocab", "257", "--seq", "16", "--micro-batch", "2")
LOOP = ("--accumulation", "1", "--steps", "20", "--gpu", "cpu", "--peak-lr", "1e-2", "--recipe", "fp32")


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Matrices this small lose much to threads where other processes want the cores."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def small(call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run.toml of a tiny model, and text, on a machine that is not measured."""
    monkeypatch.setattr(module, "adapt_to_device", lambda config, device, log: config)
    (tmp_path / "text.txt").write_text("the quick brown fox. " * 100, encoding="utf-8")
    assert call("plan", *SHAPE, *LOOP, "-o", "run.toml").code == 0
    return tmp_path


def test_preflight(call: Call, small: Path) -> None:
    before = sorted(small.iterdir())
    said = call("preflight", "run.toml", "--data", "text.txt", "--device", "cpu", "--out", "runs/one", "--json")
    assert said.code == 0, said
    report = json.loads(said.out)
    jsonschema.validate(report, schemas()["preflight"])
    assert {c["name"]: c["verdict"] for c in report["checks"]}["save and load"] == "ok"
    assert sorted(small.iterdir()) == before

    (small / "bad.bin").write_bytes(b"\xff\xff" * 100)
    failed = call("preflight", "run.toml", "--data", "bad.bin", "--device", "cpu")
    assert failed.code == 1 and "✗ FAILED: data" in failed.out and "1 failed" in failed.out
    assert sorted(small.iterdir()) == sorted([*before, small / "bad.bin"])

    call("preflight").refused("the config is missing")
    call("preflight", "no.toml").refused("no.toml does not exist")
    call("preflight", "run.toml", "--device", "tpu").refused("unknown device 'tpu'")
    call("preflight", "run.toml", "--time-limit", "soon").refused("--time-limit")


def test_lr_find(call: Call, small: Path) -> None:
    words = ("lr-find", "run.toml", "--data", "text.txt", "--device", "cpu", "--steps", "30", "--to", "1")
    said = call(*words, "--json")
    assert said.code == 0, said
    found = json.loads(said.out)
    jsonschema.validate(found, schemas()["lr-find"])
    assert found["rates"][0] == 1e-7 and len(found["rates"]) == len(found["losses"])
    assert "suggested --peak-lr" in call(*words).out
    assert call(*words, "--csv", "-").out.splitlines()[0] == "step,learning_rate,loss,smoothed_loss"
    assert call(*words, "--csv", "rates.csv").code == 0 and (small / "rates.csv").exists()
    call(*words, "--csv", "rates.csv").refused("rates.csv")
    call("lr-find", "run.toml", "--from", "1").refused("--from 1 is not below")


def test_both_read_what_a_run_reads(call: Call, small: Path) -> None:
    """JSON-lines under another key, as `run --data FILE --text-key KEY` takes them."""
    lines = [json.dumps({"body": "the quick brown fox. " * 100})] * 3
    (small / "a.jsonl").write_text("\n".join(lines))
    words = ("run.toml", "--data", "a.jsonl", "--device", "cpu")
    for command in "preflight", "lr-find":
        wrong = call(command, *words)
        assert wrong.code and "text" in wrong.out + wrong.err, wrong
        call(command, *words, "--eot", "soon").refused("--eot")
        unknown = call(command, *words, "--text-key", "body", "--tokenizer", "none.json")
        assert unknown.code and "none.json" in unknown.out + unknown.err, unknown
    report = json.loads(call("preflight", *words, "--text-key", "body", "--json").out)
    (data,) = [check for check in report["checks"] if check["name"] == "data"]
    assert data["verdict"] != "failed" and data["values"]["documents"] == 3
    said = call("lr-find", *words, "--text-key", "body", "--steps", "12")
    assert said.code == 0 and "suggested" in said.out + said.err, said


def test_sample(call: Call, small: Path) -> None:
    call("sample", "nowhere").refused("neither a run directory nor a checkpoint")
    options = RunOptions(device="cpu", data_path=small / "text.txt")
    run(load_config(small / "run.toml"), small / "run", options, lambda line: None)
    (small / "run/config.toml").write_bytes((small / "run.toml").read_bytes())
    words = ("sample", "run", "--prompt", "the ", "--tokens", "8", "--device", "cpu", "--seed", "3")
    said = call(*words)
    assert said.code == 0 and said.out.startswith("the ") and "no key-value cache" in said.err
    found = json.loads(call(*words, "--json").out)
    (one,) = found["samples"]
    assert found["step"] == 20 and len(one["tokens"]) == 8
    assert ("the " + one["text"]).rstrip("\n") == said.out.rstrip("\n")
    call(*words, "--top-p", "2").refused("--top-p 2 is out of range")
    call(*words, "--temperature", "0", "--samples", "2").refused("all be the same text")
