"""Each check of the machine fails on the fault that it looks for: memory, disk, time, checkpoints, scratch folder."""

from __future__ import annotations

import os
import shutil
import signal
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from planner.config.run import HardwareConfig
from planner.errors import FileError
from planner.plan import estimate
from reference_trainer.data.samples import open_data
from reference_trainer.preflight import checkpoints as preflight_checkpoints
from reference_trainer.preflight import preflight as module
from reference_trainer.preflight import system as preflight_system
from reference_trainer.preflight.checkpoints import check_disk, round_trip, scratch
from reference_trainer.preflight.steps import steps_on
from reference_trainer.preflight.system import check_memory, estimate_whole_run
from tests.reference_trainer.preflight.checks import CPU, MakeConfig, built


def test_the_round_trip_sees_a_single_bit(tiny: MakeConfig, text: Path, tmp_path: Path, monkeypatch: Any) -> None:
    context, _ = built(tiny(), text)
    steps_on(context, 1, 2)
    assert round_trip(context, tmp_path / "a").different == ()
    load = preflight_checkpoints.load

    def spoiled(*args: Any) -> Any:
        found = load(*args)
        next(iter(context.optimizer.weights.values())).data.view(torch.int32)[0] ^= 1
        return found

    monkeypatch.setattr(preflight_checkpoints, "load", spoiled)
    assert round_trip(context, tmp_path / "b").different[0].endswith("embedding.weight")


def test_peaks_that_were_not_predicted_are_a_warning(tiny: MakeConfig, text: Path) -> None:
    config = tiny()
    plan = estimate(config, replay=True)
    seen = module.probe(config, open_data(text, 256, 32), CPU, lambda line: None).track
    assert preflight_system.check_phase_peaks(plan, seen).verdict == "ok"
    seen.phases[0].peak_bytes *= 2
    worse = preflight_system.check_phase_peaks(plan, seen)
    assert worse.verdict == "warning" and seen.phases[0].phase in worse.why
    assert preflight_system.check_device_peak(plan, 5, 5).verdict == "skipped"


def test_memory_that_fits_only_with_retries_is_a_warning(tiny: MakeConfig) -> None:
    config = tiny(micro_batch=64, accumulation=1, vocab=8192, seq=256, context=256)
    plan = estimate(config.model_copy(update={"hardware": HardwareConfig(gpu="a100-80gb", gpus=1)}), replay=True)
    allocated, reserved = plan.memory.peak_allocated_bytes.value, plan.memory.peak_reserved_bytes.value
    assert allocated is not None and reserved is not None and allocated < reserved
    verdicts = [check_memory(plan, free).verdict for free in (reserved, reserved - 1, allocated, allocated - 1)]
    assert verdicts == ["ok", "warning", "warning", "failed"]
    assert preflight_system.check_device_peak(plan, allocated, reserved).verdict == "ok"
    assert preflight_system.check_device_peak(plan, 2 * allocated, reserved).verdict == "warning"


def test_memory_of_which_only_a_bound_is_known_fails_no_check(tiny: MakeConfig) -> None:
    config = tiny(micro_batch=64, accumulation=1, vocab=8192, seq=256, context=256, runtime="compiled", dropout=0.1)
    plan = estimate(config.model_copy(update={"hardware": HardwareConfig(gpu="a100-80gb", gpus=1)}), replay=True)
    m = plan.memory
    low, bound, reserved = m.peak_allocated_bytes.low, m.peak_allocated_bytes.value, m.peak_reserved_bytes.value
    assert low is not None and bound is not None and reserved is not None and low < 0.9 * bound
    checks = [check_memory(plan, free) for free in (reserved, bound - 1, low, low - 1)]
    assert [check.verdict for check in checks] == ["ok", "warning", "warning", "failed"]
    assert "dropout under torch.compile" in checks[1].why
    peaks = (round(0.9 * bound), "ok"), (2 * bound, "warning")
    assert all(preflight_system.check_device_peak(plan, size, size).verdict == verdict for size, verdict in peaks)


def test_time_money_and_disk(tiny: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tiny(steps=8, checkpoint_every=2)
    plan = estimate(config)
    plan = replace(plan, cost=replace(plan.cost, usd_per_gpu_hour=3600.0))
    run = estimate_whole_run(plan, 2.0, 0.0)
    assert (run.verdict, run.values["seconds"], run.values["usd"]) == ("ok", 16.0, 16.0)
    slow = estimate_whole_run(plan, 2.0, 1.0)
    assert slow.verdict == "warning" and slow.values["seconds"] == 20.0
    best = config.model_copy(update={"evaluation": config.evaluation.model_copy(update={"every": 1})})
    assert check_disk(best, tmp_path, 1).values["saves"] == 8  # each evaluation may be the best, which is saved
    free = shutil.disk_usage(tmp_path).free
    assert check_disk(config, tmp_path, free // 8).verdict == "ok"
    assert check_disk(config, tmp_path, free).verdict == "failed"
    assert check_memory(plan, None).verdict == "skipped"


def test_the_scratch_folder_is_gone_whatever_happens(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), scratch(tmp_path) as folder:
        (folder / "x").write_text("x")
        raise RuntimeError
    assert not list(tmp_path.iterdir())
    with pytest.raises(FileError, match="cannot be written"), scratch(tmp_path / "nowhere"):
        pass


def test_the_scratch_folder_is_gone_after_sigterm(tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as ended, scratch(tmp_path):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(10)
    assert ended.value.code == 143 and not list(tmp_path.iterdir())
    assert signal.getsignal(signal.SIGTERM) == before
