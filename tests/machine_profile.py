"""A quiet profile of this machine for tests: the times do not matter there, their presence does."""

from __future__ import annotations

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
