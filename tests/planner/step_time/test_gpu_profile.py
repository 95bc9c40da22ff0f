"""A measured profile of a GPU: its kernels where it has them, else the published specs, never an unknown speed."""

from __future__ import annotations

import pytest

from planner.config.run import RunConfig
from planner.inputs.draft import draft
from planner.inputs.flags import Flags
from planner.plan import Plan, estimate
from tests.planner.step_time.test_kernels import made_up


def planned(with_profile: bool, **texts: str) -> Plan:
    words = {"model": "gpt2", "steps": "10", "gpu": "h200", "micro_batch": "4", "accumulation": "1", "runtime": "eager"}
    config: RunConfig = draft(Flags(**words | texts), as_of="2026-11-27", version="test")
    return estimate(config.model_copy(update={"profile": made_up()}) if with_profile else config)


def test_kernels_that_were_measured_are_used() -> None:
    assert planned(True).throughput.basis == "profile"


@pytest.mark.parametrize(
    "texts",
    [{"runtime": "compiled"}, {"dropout": "0.1"}, {"optimizer": "muon"}, {"gpus": "8"}, {"attention": "math"}],
)
def test_what_was_not_measured_has_the_speed_of_the_published_specs(texts: dict[str, str]) -> None:
    with_profile, without = planned(True, **texts), planned(False, **texts)
    assert with_profile.throughput.basis == "datasheet" and with_profile.time == without.time
    assert with_profile.throughput.parts == without.throughput.parts
    assert "calibrate" not in with_profile.throughput.narrowed_by


def test_a_card_without_specs_stays_unknown_and_both_reasons_are_said() -> None:
    found = planned(True, gpu="v100-32gb", runtime="compiled").throughput
    assert found.basis == "unknown"
    assert "no kernels for the runtime compiled" in found.why_unknown and "no peak in bf16" in found.why_unknown
