"""Power is the change of an energy counter over time; a counter that is missing, wraps or fails is unknown."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from reference_trainer.device.power import PowerMeter, nvml_counter, rapl


def test_energy_is_that_of_the_counter() -> None:
    counter, now = iter([10.0, 110.0, None, 200.0, 150.0]), iter([0.0, 2.0, 3.0, 4.0, 5.0])
    meter = PowerMeter(lambda: next(counter), lambda: next(now))
    assert [meter.watts() for _ in range(5)] == [None, 50.0, None, None, None]


def test_rapl_is_summed_over_packages_and_wraps(tmp_path: Path) -> None:
    assert rapl(tmp_path / "none") is None and rapl(tmp_path) is None
    for name, energy in (("intel-rapl:0", 5_000_000), ("intel-rapl:1", 900), ("intel-rapl:0:0", 7)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "energy_uj").write_text(f"{energy}\n")
        (tmp_path / name / "max_energy_range_uj").write_text("10000000\n")
    read = rapl(tmp_path)
    assert read is not None and read() == 0.0
    (tmp_path / "intel-rapl:0/energy_uj").write_text("1000000\n")  # past its range: 5 J up to it, and 1 J more
    (tmp_path / "intel-rapl:1/energy_uj").write_text("2000900\n")
    assert read() == pytest.approx(8.0)
    (tmp_path / "intel-rapl:1/energy_uj").unlink()
    assert read() is None


class NVMLError(Exception):
    pass


def nvml(**changes: Any) -> Any:
    def refuse(*_: Any) -> None:
        raise NVMLError

    functions: dict[str, Any] = {
        "nvmlInit": lambda: None,
        "nvmlDeviceGetHandleByUUID": lambda uuid: uuid,
        "nvmlDeviceGetTotalEnergyConsumption": lambda _: 5_000,
        "nvmlDeviceGetPowerUsage": lambda _: 70_000,
    }
    functions |= {name: refuse for name, value in changes.items() if value is None}
    return SimpleNamespace(NVMLError=NVMLError, **functions)


def test_a_gpu_without_nvml_has_no_power() -> None:
    full = nvml_counter(nvml(), "GPU-1")
    assert full is not None and full() == 5.0
    assert nvml_counter(nvml(nvmlInit=None), "GPU-1") is None
    old = nvml_counter(nvml(nvmlDeviceGetTotalEnergyConsumption=None), "GPU-1")
    assert old is not None
    first, second = old(), old()
    assert first is not None and second is not None and 0.0 <= first <= second
    silent = nvml_counter(nvml(nvmlDeviceGetTotalEnergyConsumption=None, nvmlDeviceGetPowerUsage=None), "GPU-1")
    assert silent is not None and silent() is None
