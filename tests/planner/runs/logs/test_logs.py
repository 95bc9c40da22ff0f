"""Logs of seven trainers are recognised and read; hostile ones give one message."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

import gptplan
from planner.errors import FileError, PlanError
from planner.plan import estimate
from planner.runs.comparison import Comparison
from planner.runs.logs import lines as log_lines_module
from planner.runs.logs.compare import compare_log
from planner.runs.logs.read import RunLog, read_log
from tests.planner.runs.logs.samples import GPUS, LOGS, TOKENS

PLAN = estimate(
    gptplan.plan(
        model="gpt2", gpu="h100-80gb", gpus=GPUS, micro_batch=8, accumulation=2, steps=60, seq=1024, as_of="2026-11-21"
    ),
    replay=False,
)
GIB = 1 << 30


def _read(tmp_path: Path, text: str | bytes, name: str = "log.txt", engine: str | None = None) -> RunLog:
    path = tmp_path / name
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return read_log(path, engine)


def _rows(comparison: Comparison) -> dict[str, object]:
    return {row.key: row.measured for row in comparison.rows}


@pytest.mark.parametrize("engine", LOGS)
def test_each_log_is_recognised_and_gives_the_same_numbers(tmp_path: Path, engine: str) -> None:
    log = _read(tmp_path, LOGS[engine])
    assert (log.engine, log.last_step, log.unread) == (engine, 60, 0)
    found = _rows(compare_log(PLAN, log))
    assert found["step_seconds"] == pytest.approx(0.25, rel=0.01)  # the slow steps are left out
    assert found["tokens_per_second"] == pytest.approx(TOKENS / 0.25, rel=0.01)
    assert found["last_loss"] == pytest.approx(8.0, abs=0.01)
    assert found.get("steps", 60) == 60 and found.get("sequences_per_step", 128) == 128
    memory = {
        "nanochat": "peak_allocated_bytes", "megatron-lm": "peak_allocated_bytes", "litgpt": "peak_allocated_bytes",
        "torchtitan": "peak_reserved_bytes", "llm.c": "device_used_bytes",
    }  # fmt: skip
    if engine in memory:
        assert found[memory[engine]] == pytest.approx(20 * GIB, rel=0.01)


def test_the_log_of_another_run_is_outside(tmp_path: Path) -> None:
    text = LOGS["megatron-lm"].replace("/      60", "/    6000").replace("batch size:   128", "batch size:   256")
    rows = {row.key: row.verdict for row in compare_log(PLAN, _read(tmp_path, text)).rows}
    assert rows["steps"] == rows["sequences_per_step"] == "outside"


def test_a_named_engine_is_not_guessed_and_marked_lines_that_say_nothing_are_counted(tmp_path: Path) -> None:
    mixed = LOGS["nanogpt"] + "\n" + LOGS["llm.c"] + "\nstep  61/60 | loss cut off tok/s"
    assert _read(tmp_path, mixed, engine="llm.c").unread == 1
    assert _read(tmp_path, mixed, engine="nanogpt").engine == "nanogpt"
    with pytest.raises(PlanError, match="no steps"):
        _read(tmp_path, LOGS["nanogpt"], engine="torchtitan")
    with pytest.raises(PlanError, match="not read"):
        _read(tmp_path, mixed, engine="jax")


def test_trainer_state_of_transformers(tmp_path: Path) -> None:
    history = [{"step": s, "loss": 11 - s / 20, "learning_rate": 6e-5, "epoch": 0.1} for s in range(10, 61, 10)]
    history += [{"step": 60, "train_runtime": 80.0, "train_steps_per_second": 0.75, "train_loss": 9.5}]
    state = {"max_steps": 60, "global_step": 60, "log_history": history}
    log = _read(tmp_path, json.dumps(state), "trainer_state.json")
    assert (log.engine, log.steps, log.last_step) == ("hf-trainer", 60, 60)
    row = next(row for row in compare_log(PLAN, log).rows if row.key == "step_seconds")
    assert row.measured == pytest.approx(80 / 60) and "evaluations and saves are in it" in row.note


def test_a_loss_that_is_no_number_is_told(tmp_path: Path) -> None:
    text = LOGS["llm.c"].replace("step   60/60 | loss 8.000000", "step   60/60 | loss nan")
    comparison = compare_log(PLAN, _read(tmp_path, text))
    row = next(row for row in comparison.rows if row.key == "last_loss")
    assert row.measured is None and "nan" in row.note
    first = next(row for row in comparison.rows if row.key == "first_loss")
    assert first.predicted == pytest.approx(math.log(50257)) and first.verdict == "unknown"


HOSTILE: dict[str, tuple[bytes, str]] = {
    "binary": (b"iter 1: loss 1.0\x00\x01", "zero bytes"),
    "empty": (b"", "no steps"),
    "no trainer": (b"hello\n" * 100, "no steps"),
    "not utf-8": (b"\xff\xfe\n" * 100, "no steps"),
    "one line of a megabyte": (b"iter 1: loss " + b"9" * (1 << 20), "no steps"),
    "huge numbers": (b"iter 1: loss " + b"9" * 9000 + b", tme", "no steps"),
    "nested": (b"{'loss': " + b"[" * 3000, "no steps"),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_log_is_one_message(tmp_path: Path, kind: str) -> None:
    content, words = HOSTILE[kind]
    with pytest.raises(FileError) as caught:
        _read(tmp_path, content)
    assert words in caught.value.message()


@pytest.mark.parametrize("text", ["{", '{"log_history": 3}', '{"log_history": [{"loss": true}]}', "[" * 100_000, "1"])
def test_a_damaged_trainer_state_is_one_message(tmp_path: Path, text: str) -> None:
    with pytest.raises(FileError):
        _read(tmp_path, text, "trainer_state.json")


def test_numbers_that_no_machine_has_do_no_harm(tmp_path: Path) -> None:
    text = LOGS["nanochat"].replace("20480.00MiB", "9" * 400 + "MiB").replace("dt: 250.00ms", "dt: 1e999ms", 5)
    log = _read(tmp_path, text)
    assert log.allocated_bytes is None and log.step_seconds == 0.25


def test_the_start_of_a_long_line_and_a_cut_end_are_no_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_lines_module, "_CHUNK", 1000)
    lines = LOGS["nanogpt"].split("\n")
    text = "\n".join([*lines, "iter 60: loss 1.0, time 1.00ms, mfu " + "x" * 70_000, "iter 61: loss 2.0, tim"])
    log = _read(tmp_path, text)
    assert (log.lines, log.last_step, log.unread) == (60, 60, 1)


def test_a_log_beyond_the_bound_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_lines_module, "MOST_LOG", 1000)
    with pytest.raises(FileError, match="too large"):
        _read(tmp_path, LOGS["nanogpt"])
