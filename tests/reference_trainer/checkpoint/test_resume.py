"""A run in several calls equals a run in one call; resuming with another config or other data is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from planner.config.run import RunConfig
from planner.counts.run import tokens_per_step
from planner.errors import CheckpointError, ConfigError, DataError, FileError, InputError, PlanError
from reference_trainer.loop.startup import last_step_of
from reference_trainer.metrics.records import RunResult
from reference_trainer.step.options import RunOptions

MakeConfig = Callable[..., RunConfig]
Train = Callable[..., RunResult]

LLAMA_LIKE: dict[str, object] = {
    "position": "rotary",
    "norm": "rmsnorm",
    "mlp": "swiglu",
    "biases": "none",
    "tied_embeddings": False,
    "kv_heads": 1,
    "recipe": "mixed-bf16",
    "activation_checkpointing": "full",
}


def rows(folder: Path, name: str = "metrics.jsonl") -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / name).read_text(encoding="utf-8").splitlines()]


@pytest.mark.parametrize("changes", [{}, LLAMA_LIKE], ids=["gpt2-like", "llama-like"])
def test_fault_18_two_interruptions_change_no_bit(
    tiny: MakeConfig, train: Train, tmp_path: Path, changes: dict[str, object]
) -> None:
    """Stops after steps 3 and 5 lie inside the first epoch (29 samples, 4 a step); the last step is in the second."""
    config = tiny(**changes)
    assert config.training.accumulation > 1
    whole = train(config, "whole")
    parts = [train(config, "parts", stop_after=3), train(config, "parts", stop_after=5, resume=True)]
    parts.append(train(config, "parts", resume=True))

    assert [part.steps_done for part in parts] == [3, 5, 8]
    assert [part.finished for part in parts] == [False, False, True]
    assert [loss for part in parts for loss in part.losses] == whole.losses
    assert [norm for part in parts for norm in part.grad_norms] == whole.grad_norms
    for file in ("model.safetensors", "optimizer.safetensors"):
        one, other = (load_file(tmp_path / name / "checkpoints/step-00000008" / file) for name in ("whole", "parts"))
        assert one.keys() == other.keys() and len(one) > 10
        assert all(torch.equal(one[key], other[key]) for key in one)
    assert [row["loss"] for row in rows(tmp_path / "parts")] == whole.losses


def test_the_moments_matter(tiny: MakeConfig, train: Train, tmp_path: Path) -> None:
    """The test above would be blind if the state did not reach the result: three steps leave moments behind."""
    train(tiny(), stop_after=3)
    state = load_file(tmp_path / "run/checkpoints/step-00000003/optimizer.safetensors")
    assert all(float(value) == 3.0 for key, value in state.items() if key.endswith(".step"))
    assert all(bool(value.any()) for key, value in state.items() if key.endswith("mlp.up.weight.exp_avg"))


def test_fault_31_each_step_is_in_the_metrics_once(tiny: MakeConfig, train: Train, tmp_path: Path) -> None:
    config = tiny()
    train(config, stop_after=4)
    lines = (tmp_path / "run/metrics.jsonl").read_text().splitlines()
    ahead = [json.dumps(json.loads(lines[3]) | {"step": step, "loss": -1.0}) for step in (5, 6)]
    # a run that went on to step 6 and died in the middle of a line, after its checkpoint of step 4
    (tmp_path / "run/metrics.jsonl").write_text("\n".join([*lines, *ahead]) + '\n{"step": 7, "lo')
    with (tmp_path / "run/events.jsonl").open("a") as file:
        file.write('{"time": "2026-')
    result = train(config, resume=True)
    found = rows(tmp_path / "run")
    assert [row["step"] for row in found] == list(range(1, 9))
    assert [row["loss"] for row in found[4:]] == result.losses
    assert [row["tokens"] for row in found] == [step * tokens_per_step(config) for step in range(1, 9)]
    assert [event["event"] for event in rows(tmp_path / "run", "events.jsonl")][-1] == "finished"


def test_fault_18_a_finished_run_is_left_alone(tiny: MakeConfig, train: Train, tmp_path: Path) -> None:
    config = tiny(steps=2)
    train(config)
    before = {path: path.read_bytes() for path in sorted(tmp_path.rglob("*")) if path.is_file()}
    said: list[str] = []
    result = train(config, said=said, resume=True)
    assert result.finished and result.exit_code == 0 and result.steps_done == 2 and result.losses == []
    assert len(said) == 2 and "nothing is left to do" in said[-1]
    assert {path: path.read_bytes() for path in sorted(tmp_path.rglob("*")) if path.is_file()} == before


def test_a_run_that_died_before_its_first_checkpoint_begins_again(tiny: MakeConfig, train: Train) -> None:
    config, said = tiny(steps=3, checkpoint_every=3), list[str]()
    whole = train(config, "whole")

    class Stop(Exception):
        pass

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("reference_trainer.train.train_step", _raising(Stop))
        with pytest.raises(Stop):
            train(config)
    assert train(config, said=said, resume=True).losses == whole.losses
    assert any("starts again from step 1" in line for line in said)


def _raising(error: type[Exception]) -> Callable[..., None]:
    def fail(*_: object) -> None:
        raise error

    return fail


def test_other_data_is_refused(tiny: MakeConfig, train: Train, text: Path) -> None:
    train(tiny(), stop_after=1)
    content = text.read_text()
    text.write_text(content[:-1] + "!")
    with pytest.raises(CheckpointError, match="was trained on other data"):
        train(tiny(), resume=True)


def test_a_directory_that_holds_a_run_is_kept(tiny: MakeConfig, train: Train) -> None:
    config = tiny(steps=2)
    train(config)
    with pytest.raises(FileError, match="already contains a run"):
        train(config)
    with pytest.raises(CheckpointError, match="no run to resume"):
        train(config, "empty", resume=True)


def test_a_start_that_failed_can_be_repeated(tiny: MakeConfig, train: Train, tmp_path: Path) -> None:
    with pytest.raises(DataError):
        train(tiny(), data_path=tmp_path / "missing.txt")
    assert train(tiny(steps=1)).finished


def test_tokens_of_exactly_one_step_are_one_step(tiny: MakeConfig) -> None:
    assert last_step_of(tiny(steps=None, tokens=128), RunOptions()) == 1


@pytest.mark.parametrize(
    ("changes", "options", "kind", "words"),
    [
        ({"gpus": 2}, {}, ConfigError, "for 2 GPUs"),
        ({"steps": None, "tokens": 127}, {}, ConfigError, "127 tokens are fewer than one optimizer step needs: 128"),
        ({}, {"stop_after": 0}, InputError, "cannot stop after step 0"),
        ({}, {"device": "tpu"}, InputError, "unknown device 'tpu'"),
        ({}, {"device": "cuda:99"}, PlanError, "no device 'cuda:99'"),
    ],
)
def test_what_cannot_be_executed_leaves_no_trace(
    tiny: MakeConfig,
    train: Train,
    tmp_path: Path,
    changes: dict[str, object],
    options: dict[str, object],
    kind: type[PlanError],
    words: str,
) -> None:
    with pytest.raises(kind, match=words) as caught:
        train(tiny(**changes), **options)
    assert caught.value.remedy
    assert not (tmp_path / "run").exists()
