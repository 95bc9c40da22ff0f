"""The probe measures saved bytes and the peaks of a step on a temporary model, and they equal the prediction."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from planner.config.run import RunConfig
from planner.plan import estimate
from reference_trainer.data.samples import open_data
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
