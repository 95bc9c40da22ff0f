"""The user's own evaluation: its environment, the use of its result, and that it never blocks a run."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from planner.config.loop import EvaluationConfig
from planner.config.run import RunConfig
from reference_trainer.loop.eval_command import limit, numbers_in, run_command
from reference_trainer.metrics.records import RunResult

MakeConfig = Callable[..., RunConfig]
Train = Callable[..., RunResult]
ECHO = """
import json, os
found = os.environ.get("GPTPLAN_CHECKPOINT", "")
ready = os.path.exists(os.path.join(found, "manifest.json"))
print("loading", found)
print(json.dumps({"step": int(os.environ["GPTPLAN_STEP"]), "tokens": int(os.environ["GPTPLAN_TOKENS"]),
                  "ready": int(ready), "checkpoint": int(found[-8:] or 0)}))
print()
"""


def events(folder: Path, kind: str) -> list[dict[str, Any]]:
    lines = (folder / "events.jsonl").read_text().splitlines()
    return [event for event in map(json.loads, lines) if event["event"] == kind]


def test_it_runs_once_per_step_and_sees_the_checkpoint(
    tiny: MakeConfig, train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dataclasses import replace

    import reference_trainer.loop.evaluation as module

    opened = module.open_data
    monkeypatch.setattr(module, "open_data", lambda *a, **_: replace(opened(*a), validation=opened(*a)))
    losses = iter([3.0, 4.0])  # the second evaluation is not the best: no checkpoint is written for it
    monkeypatch.setattr("reference_trainer.loop.results.evaluate", lambda *_: next(losses))
    script = tmp_path / "echo.py"
    script.write_text(ECHO)
    config = tiny(steps=8, checkpoint_every=4)
    config = config.model_copy(update={"evaluation": EvaluationConfig(every=3)})
    said: list[str] = []
    train(config, said=said, eval_command=f"{sys.executable} {script}")
    found = [event["numbers"] for event in events(tmp_path / "run", "eval command")]
    assert [(n["step"], n["tokens"], n["checkpoint"], n["ready"]) for n in found] == [
        (3, 384, 3, 1),  # an evaluation, the best so far: saved
        (4, 512, 4, 1),  # a checkpoint
        (6, 768, 4, 1),  # an evaluation without a checkpoint of its own
        (8, 1024, 8, 1),  # the last
    ]
    assert any(line.startswith("step 4: step 4, tokens 512") for line in said)
    rows = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == list(range(1, 9))


@pytest.mark.parametrize(
    ("command", "problem"),
    [
        ("echo oh dear >&2; exit 3", "exit code 3: oh dear"),
        ("true", "the last line of stdout is not a JSON object: ''"),
        ("echo '[1, 2]'", "not a JSON object"),
        ("""echo '{"a": "much"}'""", """'a' is not a finite number: "much\""""),
        ("""echo '{"a": NaN}'""", "'a' is not a finite number"),
        ("kill -9 $$", "exit code -9"),
        ("no-such-command", "exit code 127"),
    ],
)
def test_a_failure_is_told_and_training_goes_on(
    tiny: MakeConfig, train: Train, tmp_path: Path, command: str, problem: str
) -> None:
    said: list[str] = []
    result = train(tiny(steps=2, checkpoint_every=None), said=said, eval_command=command)
    (event,) = events(tmp_path / "run", "eval command failed")
    assert result.finished and problem in event["message"] and event["step"] == 2
    assert any("the eval command failed" in line and "training continues" in line for line in said)


def test_a_command_that_hangs_is_ended_with_all_it_started(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    command = f"sleep 300 & echo $! > {pids}; sleep 300"
    found = run_command(command, tmp_path, 1, 2, limit(0.5, lambda: False))
    assert found.problem.startswith("not finished after")
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline and _lives(int(pids.read_text())):
        time.sleep(0.02)
    assert not _lives(int(pids.read_text()))


def test_a_command_that_prints_without_end_does_not_fill_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("reference_trainer.loop.eval_command.MOST_OUTPUT_BYTES", 10_000)
    for stream in ("", " >&2"):
        found = run_command(f"(yes 0123456789 | head -c 1000000){stream}; sleep 20", tmp_path, 1, 2, lambda _: "")
        assert found.problem.startswith("it printed more than") and not found.numbers
    small = """yes | head -c 1000; echo; echo '{"a": 1}'"""
    assert run_command(small, tmp_path, 1, 2, lambda _: "").numbers == {"a": 1.0}


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def test_a_run_that_is_stopped_does_not_wait_for_it(tmp_path: Path) -> None:
    asked = iter([False, False, True])
    found = run_command("sleep 300", tmp_path, 1, 2, limit(300.0, lambda: next(asked)))
    assert found.problem == "stopped because the run stops"


def test_a_grandchild_that_lives_on_does_not_hold_it(tmp_path: Path) -> None:
    found = run_command("""sleep 3 & echo '{"a": 1}'""", tmp_path, 1, 2, limit(300.0, lambda: False))
    assert found.numbers == {"a": 1.0} and found.problem == ""


def test_only_the_last_line_counts() -> None:
    assert numbers_in('{"a": 1}\nnoise\n{"b": 2, "c": -0.5}\n\n') == {"b": 2.0, "c": -0.5}
    with pytest.raises(ValueError, match="'ok' is not a finite number: true"):
        numbers_in('{"ok": true}')
