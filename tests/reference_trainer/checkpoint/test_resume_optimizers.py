"""A run that is interrupted and resumed equals an uninterrupted one bit for bit, with every optimizer and precision."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from planner.config.run import RunConfig
from planner.errors import CheckpointError
from reference_trainer.checkpoint.checkpoint import load, read_state
from reference_trainer.measure.measure import build_model
from reference_trainer.metrics.records import RunResult
from reference_trainer.optim.updater import make_optimizer
from tests.reference_trainer.harm import rewrite_manifest

MakeConfig = Callable[..., RunConfig]
Train = Callable[..., RunResult]
RESUMED: list[dict[str, Any]] = [
    {"name": "adamw", "implementation": "foreach"},
    {"name": "adamw", "implementation": "for-loop", "state_dtype": "bf16"},
    {"name": "lion", "implementation": "for-loop"},
    {"name": "adafactor", "implementation": "foreach"},
    {"name": "sgd", "implementation": "fused"},
    {"name": "sgd", "implementation": "fused", "beta1": 0.0},
    {"name": "sgd", "implementation": "foreach", "beta1": 0.0},
    {"name": "muon", "implementation": "fused"},
    {"name": "muon", "implementation": "fused", "momentum": 0.0},
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
        assert one.keys() == other.keys()
        assert len(one) > 10 or (file == "optimizer.safetensors" and changes.get("beta1") == 0 and not one)
        assert all(torch.equal(one[key], other[key]) for key in one)
    assert all(bool(value.any()) for key, value in one.items() if "mlp.up.weight" in key)  # there was state to lose


def test_a_checkpoint_with_the_momentum_that_sgd_never_used_still_loads(
    tiny: MakeConfig, train: Train, tmp_path: Path
) -> None:
    """Older versions wrote a buffer of zeros for each tensor of an SGD whose momentum is 0."""
    config = tiny()
    changed = {"name": "sgd", "implementation": "foreach", "beta1": 0.0}
    config = config.model_copy(update={"optimizer": config.optimizer.model_copy(update=changed)})
    whole = train(config, "whole")
    first = train(config, "parts", stop_after=4)
    path = tmp_path / "parts/checkpoints/step-00000004"
    assert load_file(path / "optimizer.safetensors") == {}
    weights = load_file(path / "model.safetensors")
    older = {f"{name}.momentum_buffer": torch.zeros_like(w) for name, w in weights.items()}
    save_file(older, path / "optimizer.safetensors")
    rewrite_manifest(path)
    assert first.losses + train(config, "parts", resume=True).losses == whole.losses
    save_file(older | {"norm.weight.exp_avg": torch.zeros(32)}, path / "optimizer.safetensors")
    with pytest.raises(CheckpointError, match="does not hold this run's tensors") as caught:
        load(path, make_optimizer(build_model(config), config), read_state(path))
    assert "exp_avg" in str(caught.value.why)


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
