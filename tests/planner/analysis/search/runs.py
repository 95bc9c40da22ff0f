"""Small runs whose whole space a test can estimate."""

from __future__ import annotations

from planner.config.run import RunConfig
from planner.inputs.draft import draft
from planner.inputs.flags import Flags


def drafted_run(**texts: str) -> RunConfig:
    """The config of these flags."""
    return draft(Flags(**texts), as_of="2026-11-21", version="0")
