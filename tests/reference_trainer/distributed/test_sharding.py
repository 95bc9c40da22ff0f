"""FSDP2 on gloo ranks: the losses of one rank, and checkpoints that any number of ranks reads."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from planner.config.loop import CheckpointConfig, EvaluationConfig
from planner.config.parallel import ParallelConfig
from planner.config.run import RunConfig
from reference_trainer.checkpoint.atomic import list_checkpoints
from reference_trainer.checkpoint.export import export
from reference_trainer.distributed.ranks import ALONE, Ranks, process_group
from reference_trainer.execute import execute
from reference_trainer.metrics.run_directory import FollowedDirectory, RunDirectory
from reference_trainer.sampling import loaded_model
from reference_trainer.step.options import RunOptions
from reference_trainer.train import run_measured
from tests.reference_trainer.conftest import config_of, written_text
from tests.reference_trainer.distributed.gloo_ranks import RankProcesses, train_on
from tests.reference_trainer.distributed.test_replicas import TOLERANCE, rows_of

STEPS = 50


def sharded(gpus: int, parallel: dict[str, Any] | None = None, **changes: Any) -> RunConfig:
    """The tiny run of 4 micro-batches a step, under FSDP2 if there are several ranks. Its vocabulary is odd."""
    config = config_of(gpus=gpus, accumulation=4 // gpus, **{"steps": STEPS, "vocab": 257} | changes)
    update: dict[str, Any] = {"evaluation": EvaluationConfig(every=10, tokens=320)}
    update |= {"parallel": ParallelConfig(**({"fsdp": True} | (parallel or {}) if gpus > 1 else {}))}
    return config.model_copy(update=update)


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory, measured_machine: None) -> Iterator[Path]:
    """The folder of a run of one process, and of its text."""
    root = tmp_path_factory.mktemp("alone")
    options = RunOptions(device="cpu", data_path=written_text(root))
    execute(sharded(1, checkpoint_every=20), root / "run", False, options, lambda line: None)
    yield root


def losses_of(directory: Path) -> list[float]:
    """The loss of each step."""
    return [row["loss"] for row in rows_of(directory)]


def test_shards_have_the_losses_of_one(alone: Path, tmp_path: Path) -> None:
    codes, said = train_on(2, sharded(2), tmp_path / "run", alone / "text.txt")
    assert codes == [0, 0], said
    one, many = rows_of(alone / "run"), rows_of(tmp_path / "run")
    for key in ("loss", "grad_norm"):
        assert [row[key] for row in many] == pytest.approx([row[key] for row in one], rel=TOLERANCE)
    found, expected = ([row["validation_loss"] for row in rows[9::10]] for rows in (many, one))
    assert found == pytest.approx(expected, rel=TOLERANCE)


def test_a_sharded_run_goes_on_with_another_number_of_ranks(alone: Path, tmp_path: Path) -> None:
    """On four, in two groups that keep gathered weights; then two; then one: its tensors are cut anew each time."""
    out, text = tmp_path / "run", alone / "text.txt"
    four = sharded(4, {"hsdp": 2, "reshard": False})
    four = four.model_copy(update={"checkpoints": CheckpointConfig(asynchronous=True)})
    codes, said = train_on(4, four, out, text, stop_after=12)
    assert codes == [0] * 4, said
    saved = list_checkpoints(out / "checkpoints")[-1]
    shards = (f"{kind}-0000{n}-of-00002.safetensors" for kind in ("model", "optimizer") for n in (1, 2))
    assert sorted(path.name for path in saved.glob("*.safetensors")) == ["extra.safetensors", *shards]
    assert json.loads((saved / "manifest.json").read_text())["schema"] == 3
    codes, said = train_on(2, sharded(2), out, text, resume=True, stop_after=17)
    assert codes == [0, 0] and "hardware.gpus was 4, is now 2" in said[0], said
    export(out, tmp_path / "exported", lambda line: None)
    loaded_model(sharded(1), list_checkpoints(out / "checkpoints")[-1], torch.device("cpu"))
    options = RunOptions(device="cpu", data_path=text)
    assert execute(sharded(1), out, True, options, lambda line: None).exit_code == 0
    assert losses_of(out) == pytest.approx(losses_of(alone / "run"), rel=TOLERANCE)


Options = dict[str, Any]
OPTIONS: dict[str, tuple[Options, Options, float]] = {  # of the optimizer, of anything else, tolerance
    "sgd": ({"name": "sgd", "implementation": "foreach", "clip_value": 0.01}, {"peak_lr": 0.1}, TOLERANCE),
    "lion": ({"name": "lion", "implementation": "for-loop"}, {}, TOLERANCE),
    "adamw-foreach": ({"implementation": "foreach"}, {}, TOLERANCE),
    "moments-bf16": ({"state_dtype": "bf16", "implementation": "for-loop"}, {}, 1e-4),
    "checkpointed": ({}, {"activation_checkpointing": "full", "loss": "chunked", "loss_chunks": 2}, TOLERANCE),
    "mixed-bf16": ({}, {"recipe": "mixed-bf16"}, 5e-3),
    "mixed-fp16": ({}, {"recipe": "mixed-fp16"}, 5e-3),
    "pure-bf16": ({}, {"recipe": "pure-bf16"}, 2e-2),
    "master-bf16-grad16": ({}, {"recipe": "master-bf16-grad16"}, 2e-2),
}


def test_optimizers_and_recipes_on_shards(tmp_path: Path, alone: Path) -> None:
    """A few steps of each, all in the same two processes; 16-bit types round other sums otherwise."""

    def train(ranks: Ranks, gpus: int) -> dict[str, list[float]]:
        found: dict[str, list[float]] = {}
        options = RunOptions(device="cpu", data_path=alone / "text.txt")
        with process_group(ranks, torch.device("cpu")) as group:
            for name, (optimizer, others, _) in OPTIONS.items():
                out = tmp_path / f"{name}-{gpus}"
                with RunDirectory(out) if ranks.leads else FollowedDirectory(out) as held:
                    config = config_of(gpus=gpus, accumulation=4 // gpus, steps=4, **others)
                    update: Options = {"optimizer": config.optimizer.model_copy(update=optimizer)}
                    config = config.model_copy(update=update | {"parallel": ParallelConfig(fsdp=gpus > 1)})
                    result = run_measured(config, out, options, lambda line: None, None, held, group)
                found[name] = result.losses
                group.wait()
        return found

    def work(ranks: Ranks) -> int:
        (tmp_path / f"losses-{ranks.rank}").write_text(json.dumps(train(ranks, 2)))
        return 0

    started = RankProcesses(2, work, tmp_path / "ranks")
    expected = train(ALONE, 1)
    assert started.wait() == [0, 0], [started.said(rank) for rank in (0, 1)]
    told = [json.loads((tmp_path / f"losses-{rank}").read_text()) for rank in (0, 1)]
    assert told[0] == told[1], "all ranks judge the same numbers"
    for name, (_, _, tolerance) in OPTIONS.items():
        assert told[0][name] == pytest.approx(expected[name], rel=tolerance), name
