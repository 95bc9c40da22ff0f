"""A quiet profile of this machine for tests: the times do not matter there, their presence does."""

from __future__ import annotations

import fcntl
from functools import cache
from pathlib import Path
from typing import Any

from planner.inputs.profile_cache import save_profile


@cache
def _hasty() -> dict[str, Any]:
    from reference_trainer.measure.calibrate import measure_profile

    return measure_profile("cpu", 0.05)


def quiet(**changes: object) -> dict[str, Any]:
    """A profile measured in a moment that says it was quiet, on a machine as busy as the tests make it."""
    return _hasty() | {"relative_noise": 0.02} | changes


def keep_profile(cache_home: Path) -> None:
    """Put such a profile where the program looks for it if XDG_CACHE_HOME is `cache_home`."""
    save_profile(quiet(), cache_home / "gptplan" / "profile-cpu.json")


def shared_cache(folder: Path) -> Path:
    """A cache directory in `folder` with such a profile, made by the first process of the tests that asks for it.

    Without one every run on a machine that is busy with tests would measure for half a minute, in vain.
    """
    home = folder / "machine"
    with (folder / "machine.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (home / "gptplan" / "profile-cpu.json").exists():
            keep_profile(home)
    return home
