"""A model small enough to train for a few steps in a fraction of a second, and text to train it on."""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from planner.config.loop import EvaluationConfig
from planner.config.model import ModelConfig
from planner.config.run import HardwareConfig, OptimizerConfig, Provenance, RunConfig, ScheduleConfig, TrainingConfig
from reference_trainer.data.samples import open_data
from reference_trainer.metrics.records import RunResult
from reference_trainer.step.options import RunOptions
from reference_trainer.train import run
from tests.reference_trainer.fake_cuda import FakeCuda

MODEL = ModelConfig(
    name="tiny",
    layers=2,
    hidden=32,
    heads=2,
    kv_heads=2,
    head_dim=16,
    ffn=64,
    vocab=256,
    context=32,
    position="learned",
    norm="layernorm",
    mlp="gelu",
    biases=True,
    tied_embeddings=True,
    source="a test",
)
TRAINING = TrainingConfig(
    steps=8,
    seq=32,
    micro_batch=2,
    accumulation=2,
    recipe="fp32",
    activation_checkpointing="none",
    seed=7,
    checkpoint_every=2,
)
SCHEDULE = ScheduleConfig(peak_lr=3e-3, min_lr=3e-4, warmup_steps=2)
OPTIMIZER = OptimizerConfig(beta1=0.9, beta2=0.95, eps=1e-8, weight_decay=0.1, clip_norm=1.0)

MakeConfig = Callable[..., RunConfig]
Train = Callable[..., RunResult]


def config_of(**changes: object) -> RunConfig:
    """The tiny run with some values changed; a name is looked for in the sections one after the other."""
    sections: dict[str, Any] = {"model": MODEL, "training": TRAINING, "optimizer": OPTIMIZER, "schedule": SCHEDULE}
    sections |= {"hardware": HardwareConfig(gpu="cpu", gpus=1)}
    if changes.get("norm") == "rmsnorm":
        changes = {"norm_parameters": "gain"} | changes
    for key, value in changes.items():
        name = next(name for name, section in sections.items() if key in type(section).model_fields)
        sections[name] = sections[name].model_copy(update={key: value})
    return RunConfig(**sections, provenance=Provenance(as_of="2026-11-21", gptplan="0"))


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    """Matrices this small gain nothing from threads, and lose much where other processes want the cores."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def child_environment(machine_cache: Path) -> dict[str, str]:
    """For a process that trains: it finds the packages, and has as many threads as this one, for the same bits."""
    path = os.pathsep.join(filter(None, [str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")]))
    return os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1", "XDG_CACHE_HOME": str(machine_cache)}


@pytest.fixture(scope="module", autouse=True)
def measured_machine(machine_cache: Path) -> Iterator[None]:
    """A run in this process finds a profile of the machine."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(machine_cache))
        yield


@pytest.fixture(scope="session")
def tiny() -> MakeConfig:
    """Makes configs: `tiny(steps=3)`."""
    return config_of


def written_text(folder: Path) -> Path:
    """29 samples of 32 letters: eight steps of four go past the end of the first epoch."""
    letters = random.Random(1).choices("the quick brown fox ", k=29 * 32 + 10)
    path = folder / "text.txt"
    path.write_text("".join(letters), encoding="utf-8")
    return path


@pytest.fixture
def text(tmp_path: Path) -> Path:
    """The text of `written_text`."""
    return written_text(tmp_path)


@dataclass(frozen=True)
class Finished:
    """A run of `tiny(steps=4)`, whole, with checkpoints of steps 2 and 4; trained once for all tests of a file."""

    root: Path
    config: RunConfig
    losses: list[float]

    def copy(self, folder: Path) -> Path:
        """A copy of the run directory, to be harmed."""
        return Path(shutil.copytree(self.root / "run", folder / "run"))

    def resume(self, directory: Path, config: RunConfig | None = None, **options: Any) -> tuple[RunResult, list[str]]:
        """The run continued in `directory`, and what it said."""
        said: list[str] = []
        chosen = RunOptions(**{"device": "cpu", "data_path": self.root / "text.txt", "resume": True} | options)
        return run(config or self.config, directory, chosen, said.append), said


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, one_thread: None) -> Finished:
    """A finished run."""
    root = tmp_path_factory.mktemp("finished")
    config = config_of(steps=4)
    result = run(config, root / "run", RunOptions(device="cpu", data_path=written_text(root)), lambda line: None)
    return Finished(root, config, result.losses)


@pytest.fixture
def train(tmp_path: Path, text: Path) -> Train:
    """Runs a config on the CPU in the directory of that name: `train(config, "run", resume=True)`."""

    def call(config: RunConfig, name: str = "run", said: list[str] | None = None, **options: Any) -> RunResult:
        chosen: dict[str, Any] = {"device": "cpu", "data_path": text} | options
        return run(config, tmp_path / name, RunOptions(**chosen), (said if said is not None else []).append)

    return call


def evaluated(config: RunConfig, **changes: Any) -> RunConfig:
    return config.model_copy(update={"evaluation": EvaluationConfig(**changes)})


@pytest.fixture
def held_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """The text serves as its own validation part."""

    def with_part(*args: Any, **_: Any) -> Any:
        data = open_data(*args)
        return replace(data, validation=data)

    monkeypatch.setattr("reference_trainer.loop.evaluation.open_data", with_part)


@pytest.fixture
def fake_cuda(monkeypatch: pytest.MonkeyPatch) -> FakeCuda:
    """Two H200 that are not there."""
    return FakeCuda().install(monkeypatch)
