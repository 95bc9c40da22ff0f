"""Upper bounds of counts that become a loop, a list or files: refused before the work, not after an hour of it."""

from __future__ import annotations

from planner.errors import InputError

MOST_SAMPLED_TOKENS = 1_000_000
MOST_RANGE_STEPS = 10_000
MOST_CALIBRATION_SECONDS = 3600
MOST_CALIBRATION_TRIES = 100
MOST_SHARDS = 100_000


def refuse_more_than(most: int, value: float, name: str, why: str) -> None:
    """Raises InputError, with the bound, if `value` of the option `name` is above it."""
    if value > most:
        shown = f"{value:,}" if isinstance(value, int) and value < 10**15 else f"{value:.3g}"
        raise InputError(
            f"{name}: {shown} is too many", why=f"{why}: {most:,} at most", remedy=f"give {most:,} or fewer"
        )
