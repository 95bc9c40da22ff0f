"""docs/reference/metrics.md names every key that a run writes, and no other."""

from __future__ import annotations

import ast
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from planner.config.loop import EvaluationConfig
from planner.config.run import RunConfig
from reference_trainer.metrics.metric_names import ALWAYS, EVENTS, METRICS, metric_of
from reference_trainer.metrics.records import RunResult

MakeConfig = Callable[..., RunConfig]
Train = Callable[..., RunResult]
OURS = Path(__file__).parents[3] / "reference_trainer"


def objects(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_every_key_of_a_run_is_documented(
    tiny: MakeConfig, train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import reference_trainer.loop.evaluation as module

    opened = module.open_data
    monkeypatch.setattr(module, "open_data", lambda *a, **_: replace(opened(*a), validation=opened(*a)))
    config = tiny(steps=4, recipe="mixed-fp16").model_copy(update={"evaluation": EvaluationConfig(every=2)})
    asked = {"statistics_every": 2, "noise_scale": True, "log_every": 4}
    train(config, stop_after=2, **asked)
    train(config, resume=True, **asked)
    rows = objects(tmp_path / "run/metrics.jsonl")
    written = {metric_of(key) for row in rows for key in row}
    # the limit by value is an option of the optimizer; test_signals.py counts it
    of_experts = {"expert_load", "balancing_loss"}  # tests/reference_trainer/model/test_balancing.py has them
    assert written == set(METRICS) - {"clipped_share"} - of_experts
    always = {metric_of(key) for key in set.intersection(*(set(row) for row in rows))}
    assert always >= {key for key, (_, when, _) in METRICS.items() if when == ALWAYS}
    with pytest.raises(KeyError):
        metric_of("gradrms/head")
    for event in objects(tmp_path / "run/events.jsonl"):
        named = EVENTS["start" if event["event"] == "resume" else event["event"]][1]
        assert set(event) - {"time", "event", "step"} <= set(named), event


def test_every_event_in_the_source_is_documented() -> None:
    """Found as calls of `….event("name", key=…)` and of the `event` that meters are given."""
    found: dict[str, set[str]] = {}
    for path in OURS.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "event":
                first = node.args[0]
                names = [first.body, first.orelse] if isinstance(first, ast.IfExp) else [first]
                for name in names:
                    assert isinstance(name, ast.Constant), ast.dump(node)
                    found.setdefault(name.value, set()).update(k.arg for k in node.keywords if k.arg)
    assert set(found) == set(EVENTS)
    for name, keys in found.items():
        if name not in ("start", "resume"):  # theirs come from facts_of, and are checked above
            assert keys - {"step"} == set(EVENTS[name][1]), name
