"""What this machine's profile decides about a run, and what one from a busy machine may not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from planner.config.run import RunConfig
from planner.inputs.draft import draft
from planner.inputs.flags import Flags
from planner.inputs.profile_cache import load_profile
from reference_trainer.loop import device_adaptation
from reference_trainer.loop.device_adaptation import adapt_to_device
from reference_trainer.measure.calibrate import NOISY

CPU = torch.device("cpu")


def adapted(monkeypatch: pytest.MonkeyPatch, folder: Path, noise: float, **flags: str) -> tuple[RunConfig, list[str]]:
    """A run adapted to a machine whose fp32 matmuls are the faster ones, by a profile with that noise."""
    profile: dict[str, Any] = {"schema": 1, "relative_noise": noise, "kernels": {}}
    monkeypatch.setattr(device_adaptation, "NOT_KEPT", {})
    monkeypatch.setattr(device_adaptation, "is_current", lambda profile: True)
    monkeypatch.setattr(device_adaptation, "cached_profile", lambda device, log: None)
    monkeypatch.setattr(device_adaptation, "measure_profile", lambda device, seconds, log: profile)
    monkeypatch.setattr(device_adaptation, "bf16_is_faster", lambda profile: False)
    monkeypatch.setattr(device_adaptation, "profile_path", lambda device: folder / "cache/profile.json")
    words = {"params": "125M", "steps": "10", "gpu": "cpu"} | flags
    said: list[str] = []
    return adapt_to_device(draft(Flags(**words), as_of="2026-11-21", version="test"), CPU, said.append), said


def test_a_quiet_profile_is_kept_and_chooses_the_faster_type(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    config, said = adapted(monkeypatch, tmp_path, NOISY)
    assert config.training.recipe == "fp32" and "training in fp32" in said[-1]
    assert (tmp_path / "cache/profile.json").exists()
    (assumed,) = [a for a in config.provenance.assumptions if a.key == "recipe"]
    assert assumed.value == "fp32"


def test_a_noisy_profile_is_not_kept_and_changes_no_type(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    config, said = adapted(monkeypatch, tmp_path, NOISY * 1.01)
    assert config.training.recipe == "mixed-bf16" and "is not kept" in said[-1]
    assert not (tmp_path / "cache").exists() and load_profile(tmp_path / "cache/profile.json") is None
    assert config.profile is not None and config.profile["relative_noise"] == NOISY * 1.01  # of this run's prediction
    said.clear()
    assert adapt_to_device(config, CPU, said.append) == config and said == []  # it is not measured a second time


def test_a_type_that_was_typed_stays(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for noise in (0.0, 0.9):
        config, _ = adapted(monkeypatch, tmp_path, noise, recipe="mixed-bf16")
        assert config.training.recipe == "mixed-bf16"
