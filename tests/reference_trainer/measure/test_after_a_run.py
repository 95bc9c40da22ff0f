"""What a run leaves in memory when its probe builds a second model: nothing; and a probe for which there is no room."""

from __future__ import annotations

import gc
import json
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Any

import pytest
import torch
from torch import Tensor

from planner.config.loop import CheckpointConfig
from planner.config.run import RunConfig
from planner.errors import FileError
from reference_trainer import execute as execution
from reference_trainer import train as training
from reference_trainer.loop import startup
from reference_trainer.measure import probe as probing
from reference_trainer.step.options import RunOptions
from tests.reference_trainer.conftest import evaluated

MakeConfig = Callable[..., RunConfig]
CPU = torch.device("cpu")


@pytest.fixture
def no_collector() -> Iterator[None]:
    """Python's collector of cycles does not run, as it may not before the next allocation on a GPU."""
    # the first optimizer of a process imports PyTorch's compiler, in whose import an error keeps its callers' frames
    torch.optim.AdamW([torch.zeros(1)])
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.fixture
def built(monkeypatch: pytest.MonkeyPatch) -> list[weakref.ref[Tensor]]:
    """Weak references to the tensors of every run: weights, gradients' owners and optimizer state."""
    found: list[weakref.ref[Tensor]] = []
    build = startup.build

    def watched(*given: Any) -> Any:
        context = build(*given)
        context.optimizer.new_state()
        for tensors in (context.model.state_dict(keep_vars=True), context.optimizer.weights, context.optimizer.state()):
            found.extend(weakref.ref(t) for t in tensors.values())
        return context

    monkeypatch.setattr(training, "build", watched)
    return found


@pytest.mark.parametrize(
    ("changes", "options"),
    [
        ({}, {}),
        ({"recipe": "master-bf16", "dropout": 0.1}, {"statistics_every": 2, "noise_scale": True}),
        ({"checkpoints": CheckpointConfig(asynchronous=True), "activation_checkpointing": "selective"}, {}),
        ({"name": "muon", "recipe": "mixed-fp16"}, {}),
    ],
    ids=["plain", "masters and watchers", "asynchronous", "muon, scaled"],
)
def test_no_tensor_of_a_run_outlives_it(
    tiny: MakeConfig, text: Path, tmp_path: Path, built: list[Any], no_collector: None, changes: Any, options: Any
) -> None:
    changes = dict(changes)
    checkpoints = changes.pop("checkpoints", CheckpointConfig())
    optimizer = {"name": changes.pop("name")} if "name" in changes else {}
    config = tiny(steps=2, **changes).model_copy(update={"checkpoints": checkpoints})
    config = config.model_copy(update={"optimizer": config.optimizer.model_copy(update=optimizer)})
    chosen = RunOptions(device="cpu", data_path=text, **options)
    training.run_measured(config, tmp_path / "run", chosen, lambda line: None)
    assert len(built) > 20
    assert sum(ref() is not None for ref in built) == 0, "without the collector, something still refers to them"


def test_fault_26_a_probe_that_finds_no_memory_leaves_the_run_its_report(
    tiny: MakeConfig, text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(execution, "adapt_to_device", lambda config, device, log, **named: config)

    def refuse(*_: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nmore lines")

    monkeypatch.setattr(probing, "saved_bytes_by_operator", refuse)
    said: list[str] = []
    options = RunOptions(device="cpu", data_path=text)
    outcome = execution.execute(tiny(steps=4), tmp_path / "run", False, options, said.append)
    assert outcome.exit_code == 0 and outcome.comparison is not None
    assert any("the probe ran out of memory (CUDA out of memory. Tried to allocate 2.00 GiB.)" in s for s in said), said
    measured = json.loads((tmp_path / "run/measurement.json").read_text())
    assert measured["finished"] and measured["phases"] == {} and measured["saved_by_operator"] == {}


@pytest.mark.parametrize("early", [False, True], ids=["all steps", "stopped early"])
def test_fault_50_a_run_that_ended_before_its_report_has_it_when_it_is_resumed(
    tiny: MakeConfig, text: Path, tmp_path: Path, held_out: None, monkeypatch: pytest.MonkeyPatch, early: bool
) -> None:
    """Killed, or the disk full, between the last step and the report: the steps are taken from the log."""
    monkeypatch.setattr(execution, "adapt_to_device", lambda config, device, log, **named: config)
    config = tiny(steps=30, checkpoint_every=4, peak_lr=0.5 if early else 3e-3)
    config = evaluated(config, every=2, tokens=128, patience=2) if early else config
    options = RunOptions(device="cpu", data_path=text)

    def full(*_: Any) -> Any:
        raise FileError("report.md cannot be written", why="No space left on device")

    with monkeypatch.context() as patch, pytest.raises(FileError, match="No space"):
        patch.setattr(execution, "_write_report", full)
        execution.execute(config, tmp_path / "run", False, options, lambda line: None)
    outcome = execution.execute(config, tmp_path / "run", True, options, lambda line: None)
    measured = json.loads((tmp_path / "run/measurement.json").read_text())
    rows = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert outcome.exit_code == 0 and measured["finished"] and (len(rows) < 30) is early
    assert measured["steps_done"] == len(rows) and measured["steps_timed"] == len(rows) - 2
    assert measured["step_seconds"] == median([row["step_seconds"] for row in rows[2:]])
    assert (measured["first_loss"], measured["last_loss"]) == (rows[0]["loss"], rows[-1]["loss"])
    assert measured["rates"] == [[row["step"], row["lr"]] for row in rows]
    assert measured["device_used_bytes"] is None, "this process did not train"
    found = {row.key: row.verdict for row in outcome.comparison.rows} if outcome.comparison else {}
    assert found["learning_rate_difference"] == found["checkpoint_bytes"] == "within"
    before = (tmp_path / "run/measurement.json").read_bytes()
    assert execution.execute(config, tmp_path / "run", True, options, lambda line: None).comparison is not None
    assert (tmp_path / "run/measurement.json").read_bytes() == before


def test_another_error_of_the_probe_is_no_shortage(
    tiny: MakeConfig, monkeypatch: pytest.MonkeyPatch, text: Path
) -> None:
    def broken(*_: Any) -> Any:
        raise RuntimeError("shapes do not match")

    monkeypatch.setattr(probing, "probe", broken)
    with pytest.raises(RuntimeError, match="shapes"):
        probing.probe_if_possible(tiny(), None, CPU, lambda line: None)  # type: ignore[arg-type]
