"""Energy drawn by the device since a run began, where a driver tells; read at log intervals only.

    GPU         NVML's counter of the card's energy (Volta and later), else its power now; needs nvidia-ml-py
    processor   RAPL's counters of the packages (Linux, /sys/class/powercap), most often readable by root only

Both are of the whole card or package: other processes on it are counted too.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

POWERCAP = Path("/sys/class/powercap")


class PowerMeter:
    """`watts()`: mean power since the last call; None where nobody tells, and at the first call."""

    def __init__(self, joules: Callable[[], float | None], clock: Callable[[], float] = time.monotonic) -> None:
        """joules: a counter of energy that only grows; None: it cannot be read."""
        self._joules, self._clock = joules, clock
        self._last: tuple[float, float] | None = None

    def watts(self) -> float | None:
        """Joules per second of a monotonic clock."""
        joules, now = self._joules(), self._clock()
        before, self._last = self._last, None if joules is None else (joules, now)
        if joules is None or before is None or now <= before[1] or joules < before[0]:
            return None
        return (joules - before[0]) / (now - before[1])


def power_meter(device: torch.device) -> PowerMeter:
    """The meter of this device, started."""
    meter = PowerMeter((_nvml(device) if device.type == "cuda" else rapl(POWERCAP)) or (lambda: None))
    meter.watts()
    return meter


def rapl(root: Path) -> Callable[[], float | None] | None:
    """A counter in joules over all packages; None where there are none, or they may not be read."""
    zones = [p for p in sorted(root.glob("intel-rapl:*")) if p.name.count(":") == 1]  # parts of a package have two
    try:
        last = [_microjoules(zone / "energy_uj") for zone in zones]
        ranges = [_microjoules(zone / "max_energy_range_uj") for zone in zones]
    except (OSError, ValueError):
        return None
    if not zones:
        return None
    total = 0

    def joules() -> float | None:
        nonlocal total
        try:
            for i, zone in enumerate(zones):
                now = _microjoules(zone / "energy_uj")
                total += now - last[i] if now >= last[i] else now + ranges[i] - last[i]  # it wraps within the hour
                last[i] = now
        except (OSError, ValueError):
            return None
        return total / 1e6

    return joules


def _microjoules(path: Path) -> int:
    return int(path.read_text(encoding="ascii"))


def _nvml(device: torch.device) -> Callable[[], float | None] | None:
    """A counter in joules of a GPU; None without the package, or where the driver refuses."""
    if find_spec("pynvml") is None:
        return None
    import pynvml  # type: ignore[import-not-found, import-untyped, unused-ignore]  # 20 ms, only on a GPU

    return nvml_counter(pynvml, f"GPU-{torch.cuda.get_device_properties(device).uuid}")


def nvml_counter(pynvml: Any, uuid: str) -> Callable[[], float | None] | None:
    """A counter in joules by the module `pynvml`; an older card's power now is taken for that since the last call."""
    try:
        pynvml.nvmlInit()
        handle = pynvml.nvmlDeviceGetHandleByUUID(uuid.encode())
    except pynvml.NVMLError:
        return None
    summed, since = 0.0, time.monotonic()

    def joules() -> float | None:
        nonlocal summed, since
        try:
            return float(pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)) / 1e3  # millijoules
        except pynvml.NVMLError:
            pass
        try:
            watts = float(pynvml.nvmlDeviceGetPowerUsage(handle)) / 1e3
        except pynvml.NVMLError:
            return None
        now = time.monotonic()
        summed, since = summed + watts * (now - since), now
        return summed

    return joules
