"""What a run leaves in memory when its probe builds a second model: nothing; and a probe for which there is no room."""

from __future__ import annotations

import gc
import json
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from planner.config.loop import CheckpointConfig
from planner.config.run import RunConfig
from reference_trainer import execute as execution
from reference_trainer import train as training
from reference_trainer.loop import startup
from reference_trainer.measure import probe as probing
from reference_trainer.step.options import RunOptions

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


def test_another_error_of_the_probe_is_no_shortage(
    tiny: MakeConfig, monkeypatch: pytest.MonkeyPatch, text: Path
) -> None:
    def broken(*_: Any) -> Any:
        raise RuntimeError("shapes do not match")

    monkeypatch.setattr(probing, "probe", broken)
    with pytest.raises(RuntimeError, match="shapes"):
        probing.probe_if_possible(tiny(), None, CPU, lambda line: None)  # type: ignore[arg-type]
