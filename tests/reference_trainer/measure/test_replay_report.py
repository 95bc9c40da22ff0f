"""The trace report: one replay of a shallow model, two of a deep one, and the highest peak of each phase."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from planner.analysis.replay import FEW
from planner.config.run import RunConfig
from planner.counts.run import resolve
from planner.errors import ConfigError
from planner.memory.phases import simulate_run
from reference_trainer.measure.replay import replay
from reference_trainer.measure.replay_report import traced

MakeConfig = Callable[..., RunConfig]
SCALARS = 64  # bytes: the loss, its divisor and counts of steps are not simulated


def test_a_shallow_model_is_replayed_whole_and_equals_the_prediction(tiny: MakeConfig) -> None:
    config = tiny()
    report, seen = traced(config), replay(config)
    assert (report.replayed_layers, report.extrapolated, report.allocator_events) == ((2,), False, "replay")
    assert {p.phase: p.replayed_bytes for p in report.phases} == seen.by_phase()
    highest = max(seen.by_phase().values())
    assert all(view.requested_bytes == pytest.approx(highest, abs=SCALARS) for view in report.allocator)
    assert {p.phase: p.predicted_bytes for p in report.phases} == {
        p.phase: p.peak_bytes for p in simulate_run(resolve(config)).phases
    }
    assert abs(report.largest_difference_bytes) <= SCALARS and report.predicted_peak_phase == seen.peak.phase


def test_a_phase_that_occurs_twice_has_its_highest_peak(tiny: MakeConfig) -> None:
    """Two micro-batches go through forward and backward twice a step, the second with gradients there already."""
    config = tiny(accumulation=2)
    phases = replay(config).phases
    names = [p.phase for p in phases]
    peaks = {name: max(p.peak_bytes for p in phases if p.phase == name) for name in names}
    assert len(names) > len(peaks)
    assert {p.phase: p.replayed_bytes for p in traced(config).phases} == peaks


def test_few_blocks_extrapolate_to_what_all_of_them_show(tiny: MakeConfig) -> None:
    config = tiny(layers=8)
    few, whole = traced(config, whole=False), traced(config, whole=True)
    assert (few.replayed_layers, few.extrapolated, few.allocator_events) == (FEW, True, "walk")
    assert (whole.replayed_layers, whole.extrapolated, whole.allocator_events) == ((8,), False, "replay")
    assert [(p.phase, p.replayed_bytes) for p in few.phases] == [(p.phase, p.replayed_bytes) for p in whole.phases]


@pytest.mark.parametrize("runtime", ["compiled", "fused"])
def test_a_runtime_that_is_not_the_models_own_operators_is_refused(tiny: MakeConfig, runtime: str) -> None:
    with pytest.raises(ConfigError, match=f"the runtime '{runtime}' is not replayed") as caught:
        traced(tiny(runtime=runtime))
    assert 'runtime = "eager"' in caught.value.remedy
