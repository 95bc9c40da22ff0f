"""Reads the events of a run directory, for tests."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def events(folder: Path, kind: str) -> list[dict[str, Any]]:
    lines = (folder / "events.jsonl").read_text().splitlines()
    return [event for event in map(json.loads, lines) if event["event"] == kind]
