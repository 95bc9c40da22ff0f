"""A run that is interrupted and resumed equals an uninterrupted one bit for bit, with every optimizer and precision."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from planner.config.run import RunConfig
from reference_trainer.metrics.records import RunResult

MakeConfig = Callable[..., RunConfig]
Train = Callable[..., RunResult]
RESUMED: list[dict[str, Any]] = [
    {"name": "adamw", "implementation": "foreach"},
    {"name": "adamw", "implementation": "for-loop", "state_dtype": "bf16"},
    {"name": "lion", "implementation": "for-loop"},
    {"name": "adafactor", "implementation": "foreach"},
    {"name": "sgd", "implementation": "fused"},
    {"name": "muon", "implementation": "fused"},
    {"name": "adamw", "recipe": "pure-bf16"},
    {"name": "adamw", "recipe": "master-bf16"},
    {"name": "muon", "recipe": "master-bf16-grad16"},
    {"name": "adamw", "recipe": "mixed-fp16"},
]


@pytest.mark.parametrize("changes", RESUMED, ids=lambda c: "-".join(map(str, c.values())))
def test_an_interruption_changes_no_bit(
    tiny: MakeConfig, train: Train, tmp_path: Path, changes: dict[str, Any]
) -> None:
    config = tiny(recipe=changes.get("recipe", "fp32"))
    optimizer = config.optimizer.model_copy(update={k: v for k, v in changes.items() if k != "recipe"})
    config = config.model_copy(update={"optimizer": optimizer})
    whole = train(config, "whole")
    parts = [train(config, "parts", stop_after=3), train(config, "parts", resume=True)]
    assert [loss for part in parts for loss in part.losses] == whole.losses
    for file in ("model.safetensors", "optimizer.safetensors"):
        one, other = (load_file(tmp_path / name / "checkpoints/step-00000008" / file) for name in ("whole", "parts"))
        assert one.keys() == other.keys() and len(one) > 10
        assert all(torch.equal(one[key], other[key]) for key in one)
    assert all(bool(value.any()) for key, value in one.items() if "mlp.up.weight" in key)  # there was state to lose


def test_eight_bit_states_survive_an_interruption(tiny: MakeConfig, train: Train, tmp_path: Path) -> None:
    pytest.importorskip("bitsandbytes")
    config = tiny(hidden=64, head_dim=32, ffn=128)
    config = config.model_copy(update={"optimizer": config.optimizer.model_copy(update={"name": "adamw8bit"})})
    whole = train(config, "whole")
    train(config, "parts", stop_after=3)
    train(config, "parts", resume=True)
    one, other = (
        load_file(tmp_path / name / "checkpoints/step-00000008/optimizer.safetensors") for name in ("whole", "parts")
    )
    assert any(t.dtype == torch.uint8 for t in one.values()) and whole.losses[-1] < whole.losses[0]
    assert one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)
