"""Run directories that somebody has tampered with."""

from __future__ import annotations

import json
import random
from functools import cache
from typing import Any

from benchmarks.fuzzing.changes import changed_bytes, changed_json, changed_text, json_bytes
from benchmarks.fuzzing.given import Given
from benchmarks.header import ROOT

READERS = ("compare", "compare --json", "postmortem", "postmortem --json", "record", "record", "export", "resume")


@cache
def whole_run() -> dict[str, bytes]:
    """The files of a small run that was trained once, with a comparison as a run of today writes it."""
    run = ROOT / "tests" / "data" / "version_1" / "run"
    files = {path.relative_to(run).as_posix(): path.read_bytes() for path in sorted(run.rglob("*")) if path.is_file()}
    line = {"unit": "bytes", "formula": "sum", "tolerance": 0.0, "note": "", "interval": None}
    row: dict[str, Any] = line | {"key": "peak_requested_bytes", "predicted": 1000.0, "measured": 1000.0}
    return files | {
        "comparison.json": json.dumps({"schema_version": 1, "rows": [row, row | {"key": "other"}]}).encode(),
        "plan.json": json.dumps({"memory": {"peak_requested_bytes": 1000}, "time": {"step_seconds": 0.1}}).encode(),
        "rollbacks.json": json.dumps([{"step": 2, "to_step": 1, "skipped_steps": 1, "rate_factor": 0.5}]).encode(),
    }


def run_directory(rng: random.Random) -> Given:
    """A run with one to three of its files harmed or missing, and the command that reads it."""
    files = dict(whole_run())
    for _ in range(rng.choice((1, 1, 2, 3))):
        name = rng.choice(list(files))
        content = _harmed(name, files[name], rng)
        if content is None:
            del files[name]
        else:
            files[name] = content
    named = {f"run/{name}": content for name, content in files.items()}
    return Given("run directories", tuple(rng.choice(READERS).split()), named)


def _harmed(name: str, content: bytes, rng: random.Random) -> bytes | None:
    if rng.random() < 0.05:
        return None
    if rng.random() < 0.2 or name.endswith(".safetensors"):
        return changed_bytes(content, rng)
    try:
        if name.endswith(".json"):
            return json_bytes(changed_json(json.loads(content), rng), rng)
        if name.endswith(".jsonl"):
            lines = content.splitlines()
            at = rng.randrange(len(lines))
            lines[at] = json_bytes(changed_json(json.loads(lines[at]), rng), rng).replace(b"\n", b" ")
            return b"\n".join(lines) + b"\n"
    except ValueError:
        return changed_bytes(content, rng)
    return changed_text(content.decode("utf-8", "replace"), rng).encode("utf-8", "replace")
