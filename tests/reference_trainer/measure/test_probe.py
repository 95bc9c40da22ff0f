"""The probe measures saved bytes and the peaks of a step on a temporary model, and they equal the prediction."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils import _device

from planner.config.run import RunConfig
from planner.plan import estimate
from reference_trainer.data.samples import open_data
from reference_trainer.measure import probe as probing
from reference_trainer.measure.measure import build_model, saved_bytes_by_operator
from reference_trainer.measure.probe import Probe, probe

MakeConfig = Callable[..., RunConfig]
CPU = torch.device("cpu")


def probed(config: RunConfig, text: Path, lines: list[str] | None = None) -> Probe:
    return probe(config, open_data(text, 256, 32), CPU, (lines if lines is not None else []).append)


@pytest.mark.parametrize(
    "changes",
    [{}, {"accumulation": 1}, {"activation_checkpointing": "full"}, {"recipe": "mixed-bf16"}, {"norm": "rmsnorm"}],
    ids=str,
)
def test_saved_bytes_and_peaks_are_those_that_were_predicted(
    tiny: MakeConfig, text: Path, changes: dict[str, object]
) -> None:
    config = tiny(**changes)
    found, memory = probed(config, text), estimate(config, replay=True).memory
    assert {name: size for name, size in found.saved.items() if size} == {
        name: size for name, size in memory.saved_by_operator.items() if size
    }
    assert found.track.peak.peak_bytes == pytest.approx(memory.peak_requested_bytes, rel=0.01)
    predicted = {p.phase: p.peak_bytes for p in memory.phases}
    for phase, size in found.track.by_phase().items():
        assert size == pytest.approx(predicted[phase], rel=0.01), phase


def test_the_same_config_is_probed_to_the_same_bytes(tiny: MakeConfig, text: Path) -> None:
    config = tiny(dropout=0.1)
    first, second = probed(config, text), probed(config, text)
    assert first.saved == second.saved and first.track.by_phase() == second.track.by_phase()


def test_the_probe_logs_what_it_measured(tiny: MakeConfig, text: Path) -> None:
    lines: list[str] = []
    probed(tiny(), text, lines)
    (line,) = lines
    assert line.startswith("probe: ") and "saved for backward, peak " in line


@pytest.mark.parametrize("mode", ["none", "full", "offloaded"])
def test_what_a_pass_saves_is_gone_after_it_was_counted(tiny: MakeConfig, mode: str) -> None:
    """Else the phases that are measured next have all of it in them, and twice the memory is needed."""
    config = tiny(activation_checkpointing=mode)
    model, seen = build_model(config), []
    model.make_tables(config.training.seq, CPU)
    for block in model.blocks:
        block.register_forward_hook(lambda module, args, out: seen.append(weakref.ref(out.untyped_storage())))
    ids = torch.zeros((2, config.training.seq), dtype=torch.long)
    gc.disable()
    try:
        assert saved_bytes_by_operator(model, ids, ids)
        assert len(seen) >= 2 and not any(ref() is not None for ref in seen)
    finally:
        gc.enable()


def test_only_the_weights_are_made_on_a_default_device(
    tiny: MakeConfig, text: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Offloading makes its buffers on the host without naming a device: a default one would take them."""
    defaults: list[Any] = []

    def noted(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*given: Any) -> Any:
            defaults.append(_device.CURRENT_DEVICE)
            return function(*given)

        return call

    for name in ("saved_bytes_by_operator", "tracked_steps"):
        monkeypatch.setattr(probing, name, noted(getattr(probing, name)))
    probed(tiny(activation_checkpointing="offloaded"), text)
    assert defaults == [None, None]
