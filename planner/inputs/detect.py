"""This machine's GPU, as its driver names it."""

from __future__ import annotations

import shutil
import subprocess

from planner import presets
from planner.errors import InputError

DRIVER_TIMEOUT = 5.0  # s; a healthy driver answers in well under one


def machine_gpu() -> str | None:
    """Preset id of the first GPU that the driver shows; None where there is no driver or no GPU.

    Raises InputError for a GPU that no preset describes: no other card's numbers are put in its place.
    """
    program = shutil.which("nvidia-smi")
    if program is None:
        return None
    command = [program, "--query-gpu=name", "--format=csv,noheader"]
    try:
        answer = subprocess.run(
            command, capture_output=True, encoding="utf-8", errors="replace", timeout=DRIVER_TIMEOUT, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    names = [line.strip() for line in answer.stdout.splitlines() if line.strip()]
    if answer.returncode or not names:
        return None
    found = presets.gpu_by_driver_name(names[0])
    if found is None:
        raise InputError(
            f"this machine's GPU {names[0]!r} is in no preset",
            why="its peak, bandwidth and memory are unknown, and no other card's are put in their place",
            remedy=f"name the card to plan for: --gpu {' | '.join(presets.gpu_ids()[:6])} | …; "
            f"--gpu {presets.UNLISTED_GPU} plans for this one, its speed and memory unknown",
        )
    return found.id
