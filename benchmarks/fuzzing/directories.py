"""Run directories that somebody has tampered with."""

from __future__ import annotations

import json
import random
from dataclasses import asdict, replace
from functools import cache

from benchmarks.fuzzing.changes import changed_bytes, changed_json, changed_text, json_bytes
from benchmarks.fuzzing.given import Given
from benchmarks.header import ROOT
from planner.runs.comparison import Comparison, ComparisonRow

READERS = ("compare", "compare --json", "postmortem", "postmortem --json", "record", "record", "export", "resume")


@cache
def whole_run() -> dict[str, bytes]:
    """The files of a small run that was trained once, with a comparison as a run of today writes it."""
    run = ROOT / "tests" / "data" / "version_1" / "run"
    files = {path.relative_to(run).as_posix(): path.read_bytes() for path in sorted(run.rglob("*")) if path.is_file()}
    row = ComparisonRow("peak_requested_bytes", "bytes", 1000, 1000, 1.0, 0.0, "within")
    rows = (
        row,
        replace(
            row, key="step_seconds", unit="s", predicted=0.1, timing=True, verdict="unknown", measured=None, ratio=None
        ),
    )
    return files | {
        "comparison.json": _as_json(asdict(Comparison(1, "cpu", "2.13.0", "datasheet", rows))),
        "plan.json": _as_json({"memory": {"peak_requested_bytes": 1000}, "time": {"step_seconds": 0.1}}),
        "rollbacks.json": _as_json(
            [{"spike_step": 2, "to_step": 1, "skipped_steps": 1, "rate_factor": 0.5}]  # as step/rollbacks.py has it
        ),
    }


def _as_json(value: object) -> bytes:
    return json.dumps(value).encode()


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
    except (ValueError, RecursionError):  # no JSON any more, or nested too deeply: the file was harmed before
        return changed_bytes(content, rng)
    return changed_text(content.decode("utf-8", "replace"), rng).encode("utf-8", "replace")
