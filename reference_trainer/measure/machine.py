"""What a profile says about the machine that it was measured on: names, versions, clocks."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from pathlib import Path

import torch

_DRIVER_TIMEOUT = 5.0  # s
# key in the profile: what nvidia-smi calls it
GPU_FACTS = {
    "driver": "driver_version",
    "clock_mhz": "clocks.sm",
    "max_clock_mhz": "clocks.max.sm",
    "memory_clock_mhz": "clocks.mem",
    "power_limit_watts": "power.limit",
}


def machine_facts(device: torch.device) -> dict[str, object]:
    """Versions and clocks of this machine as texts and numbers; what it does not say is absent."""
    found: dict[str, object] = {
        "cores": os.cpu_count() or 1,
        "threads": torch.get_num_threads(),
        "torch": str(torch.__version__),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "memory_bytes": memory_bytes(device),
    }
    if device.type == "cuda":
        found["cuda"] = str(torch.version.cuda)
        return found | _driver_facts(device)
    clocks = processor_clocks()
    return found | ({"clock_mhz": max(clocks)} if clocks else {})


def processor_clocks(file: Path = Path("/proc/cpuinfo")) -> list[float]:
    """The present clock of each core in MHz; [] on a system that does not say."""
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
        return [float(line.partition(":")[2]) for line in lines if line.startswith("cpu MHz")]
    except (OSError, ValueError):
        return []


def _driver_facts(device: torch.device) -> dict[str, object]:
    program = shutil.which("nvidia-smi")
    if program is None:
        return {}
    # by its UUID: CUDA_VISIBLE_DEVICES numbers the cards differently
    card = f"GPU-{torch.cuda.get_device_properties(device).uuid}"
    command = [program, f"--id={card}", f"--query-gpu={','.join(GPU_FACTS.values())}", "--format=csv,noheader,nounits"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=_DRIVER_TIMEOUT, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return {}
    return {} if answer.returncode else driver_facts_in(answer.stdout)


def driver_facts_in(line: str) -> dict[str, object]:
    """The facts in a line of nvidia-smi; a value that a card does not have ("[N/A]") is absent."""
    values = [value.strip() for value in line.strip().split(",")]
    if len(values) != len(GPU_FACTS):
        return {}
    found: dict[str, object] = {}
    for key, value in zip(GPU_FACTS, values, strict=True):
        if key == "driver":
            found[key] = value
            continue
        try:
            found[key] = float(value)
        except ValueError:
            continue
    return found


def memory_bytes(device: torch.device) -> int:
    """All memory of a GPU, or of the machine."""
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory)
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
