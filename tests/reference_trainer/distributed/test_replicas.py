"""DDP on gloo ranks: the same samples, losses and weights as one rank that takes all micro-batches itself."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from planner.config.loop import EvaluationConfig
from planner.config.parallel import ParallelConfig
from planner.config.run import RunConfig
from planner.errors import ConfigError
from planner.runs.rows import JsonObject
from reference_trainer.checkpoint.atomic import list_checkpoints
from reference_trainer.distributed.layouts import refuse_layout_of_ranks
from reference_trainer.distributed.ranks import ALONE, Ranks
from reference_trainer.distributed.replicas import as_replica
from reference_trainer.execute import execute
from reference_trainer.step.options import RunOptions
from tests.reference_trainer.conftest import config_of, written_text
from tests.reference_trainer.distributed.gloo_ranks import train_on
from tests.soak import some

STEPS, TOLERANCE = 50, 1e-6


def rows_of(directory: Path) -> list[JsonObject]:
    """The rows of a run, one for each step."""
    return [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]


def on(gpus: int, **changes: Any) -> RunConfig:
    """The tiny run of 4 micro-batches a step, on so many ranks."""
    settings = {"steps": STEPS, "checkpoint_every": 20} | changes
    return config_of(gpus=gpus, accumulation=4 // gpus, **settings)


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory, measured_machine: None) -> Iterator[Path]:
    """The folder of a run of one process, and of its text."""
    root = tmp_path_factory.mktemp("alone")
    options = RunOptions(device="cpu", data_path=written_text(root))
    execute(on(1), root / "run", False, options, lambda line: None)
    yield root


# four ranks are two of the same: in `make soak`
@pytest.mark.parametrize("world", some([2, 4], lambda world: world == 2))
def test_ranks_have_the_losses_of_one(alone: Path, tmp_path: Path, world: int) -> None:
    codes, said = train_on(world, on(world), tmp_path / "run", alone / "text.txt")
    assert codes == [0] * world, said
    assert said[1:] == [""] * (world - 1), "the first rank speaks for all"
    one, many = rows_of(alone / "run"), rows_of(tmp_path / "run")
    assert [row["step"] for row in many] == list(range(1, STEPS + 1)), "one log, by one rank"
    for key in ("loss", "grad_norm"):
        assert [row[key] for row in many] == pytest.approx([row[key] for row in one], rel=TOLERANCE)
    assert [row["tokens"] for row in many] == [row["tokens"] for row in one]


def test_a_run_goes_on_with_another_number_of_ranks(alone: Path, tmp_path: Path) -> None:
    """Stopped by the signal that one rank got alone; all stop after the same step, and the curve goes on."""

    def terminated(rank: int, step: int) -> None:
        if (rank, step) == (1, 7):
            os.kill(os.getpid(), signal.SIGTERM)

    text, out = alone / "text.txt", tmp_path / "run"
    codes, said = train_on(2, on(2), out, text, before_step=terminated)
    assert codes == [143, 143], said
    assert "SIGTERM (rank 1 alone was sent it): stopped after step 7" in said[0]
    assert [path.name for path in list_checkpoints(out / "checkpoints")] == ["step-00000007"]
    log: list[str] = []
    assert execute(on(1), out, True, RunOptions(device="cpu", data_path=text), log.append).exit_code == 0
    assert any("hardware.gpus was 2, is now 1" in line for line in log), log
    one, both = rows_of(alone / "run"), rows_of(out)
    assert [row["loss"] for row in both] == pytest.approx([row["loss"] for row in one], rel=TOLERANCE)


def test_masked_targets_and_evaluations_are_those_of_all_ranks(tmp_path: Path) -> None:
    """Rows have different numbers of valid targets: a mean of the ranks' means would be another loss."""
    text = tmp_path / "text.jsonl"
    texts = ("words of a text " * n for n in range(1, 25))
    text.write_text("".join(json.dumps({"text": each}) + "\n" for each in texts))
    changes = {"steps": 4, "document_masking": True, "vocab": 257, "dropout": 0.2}
    configs = {
        n: on(n, **changes).model_copy(update={"evaluation": EvaluationConfig(every=2, tokens=160)}) for n in (1, 2)
    }
    options = RunOptions(device="cpu", data_path=text)
    execute(configs[1], tmp_path / "one", False, options, lambda line: None)
    codes, said = train_on(2, configs[2], tmp_path / "two", text)
    assert codes == [0, 0], said
    one, two = rows_of(tmp_path / "one"), rows_of(tmp_path / "two")
    for key in ("loss", "grad_norm", "valid_tokens"):
        assert [row[key] for row in two] == pytest.approx([row[key] for row in one], rel=TOLERANCE)
    found, expected = ([row.get("validation_loss") for row in rows] for rows in (two, one))
    assert [bool(loss) for loss in found] == [False, True, False, True]
    assert found[1::2] == pytest.approx(expected[1::2], rel=TOLERANCE)


@pytest.mark.parametrize(
    ("gpus", "ranks", "words"),
    [
        (2, ALONE, "for 2 GPUs, and this run is one process"),
        (2, Ranks(world=4, joined=True), "for 2 GPUs, and this run has 4 ranks"),
        (1, Ranks(world=2, joined=True), "for 1 GPU, and this run has 2 ranks"),
    ],
)
def test_ranks_that_are_not_the_gpus_of_the_config(gpus: int, ranks: Ranks, words: str) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        refuse_layout_of_ranks(on(gpus), ranks)
    assert "--nproc" in caught.value.remedy


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"tp": 2}, "tp = 2"),
        ({"zero": 1}, "zero = 1"),
        ({"recipe": "master-bf16"}, "the recipe master-bf16 on several GPUs"),
    ],
)
def test_what_ranks_do_not_run_is_refused_by_name(changes: dict[str, object], name: str) -> None:
    config = on(2, **{key: value for key, value in changes.items() if key == "recipe"})
    layout = ParallelConfig(**{key: value for key, value in changes.items() if key != "recipe"})  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=f"does not run {name}"):
        refuse_layout_of_ranks(config.model_copy(update={"parallel": layout}), Ranks(world=2, joined=True))


def test_a_rank_alone_holds_its_gradients_once() -> None:
    """One H100 under torchrun: DDP's buckets held all gradients a second time, which no plan of one GPU has."""
    model = torch.nn.Linear(2, 2)
    alone = Ranks(0, 1, 0, joined=True)
    assert as_replica(model, config_of(), alone, torch.device("cpu")) is model
