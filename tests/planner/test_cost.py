"""Price of an hour, energy and workspaces, which plans and searches ask for at one place."""

from __future__ import annotations

import pytest

from planner import presets
from planner.counts.run import Resolved, resolve
from planner.inputs.draft import draft
from planner.inputs.flags import Flags
from planner.interval import UNKNOWN, Interval, exactly
from planner.memory.device import workspaces_bytes
from planner.plan import energy_kwh, hourly_price

PUE = 1.1  # power usage effectiveness


def run_on(gpu: str, price: str | None = None) -> Resolved:
    flags = Flags(params="125M", tokens="1B", gpu=gpu, price_per_gpu_hour=price)
    return resolve(draft(flags, as_of="2026-11-21", version="test"))


def test_an_hour_costs_what_the_user_says_else_the_median_of_the_list() -> None:
    assert hourly_price(run_on("a100-80gb")) == Interval(1.57, 3.30, 5.12)  # Epoch AI's rows of 2025-03-17
    assert hourly_price(run_on("a100-80gb", "2.5")) == exactly(2.5)
    unlisted = next(gpu for gpu in presets.gpu_ids() if presets.price(gpu) is None)
    assert hourly_price(run_on(unlisted)) == UNKNOWN


def test_energy_is_the_boards_limit_times_the_centres_overhead() -> None:
    assert energy_kwh(presets.gpu("h100-80gb"), 10.0) == pytest.approx(10 * 0.7 * PUE)
    assert energy_kwh(None, 10.0) is None


def test_workspaces_are_those_of_two_threads() -> None:
    """PyTorch's defaults: 8,519,680 bytes a handle (":4096:2:16:8"), 32 MiB on Hopper."""
    assert workspaces_bytes(presets.gpu("a100-80gb")) == 2 * 8_519_680
    assert workspaces_bytes(presets.gpu("h100-80gb")) == 2 * 32 * 2**20
