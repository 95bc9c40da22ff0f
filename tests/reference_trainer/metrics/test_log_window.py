"""Log windows: speed, utilization, time left and power are recomputed from the rows that were written."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from statistics import median
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from planner.config.loop import EvaluationConfig
from planner.config.run import RunConfig
from reference_trainer.data.samples import open_data
from reference_trainer.loop.startup import build
from reference_trainer.metrics.log_window import RECENT_STEPS, LogWindow
from reference_trainer.metrics.metrics_file import read_rows
from reference_trainer.metrics.records import RunResult
from reference_trainer.step.options import RunOptions
from reference_trainer.step.step_results import StepResult
from tests.reference_trainer.fake_cuda import FakeCuda

MakeConfig = Callable[..., RunConfig]
Train = Callable[..., RunResult]
FORBIDDEN = ("item", "tolist", "numpy", "cpu", "__bool__", "__float__", "__int__", "__index__")


def objects(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_the_host_waits_once_per_log_interval_and_evaluation(
    tiny: MakeConfig, train: Train, tmp_path: Path, held_out: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Counted where our code asks a tensor for its value."""
    ours, asked = Path(__file__).parents[3] / "reference_trainer", Counter[str]()

    def counted(name: str) -> Callable[..., Any]:
        real = getattr(torch.Tensor, name)

        def ask(self: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
            caller = Path(sys._getframe(1).f_code.co_filename)
            if ours in caller.parents:
                asked[f"{caller.name}: {name}"] += 1
            return real(self, *args, **kwargs)

        return ask

    for name in FORBIDDEN:
        monkeypatch.setattr(torch.Tensor, name, counted(name))
    monkeypatch.setattr("reference_trainer.train.save_last_checkpoint", lambda *_: None)
    config = tiny(steps=10, checkpoint_every=None, accumulation=3)
    config = config.model_copy(update={"evaluation": EvaluationConfig(every=5, tokens=256)})  # four batches
    train(config, log_every=5, statistics_every=1, noise_scale=True)
    # each evaluation is the best so far, and its checkpoint is looked through before it is written
    assert asked == {"step_results.py: tolist": 2, "evaluation.py: __float__": 2, "checkpoint.py: tolist": 2}
    assert [row["step"] for row in objects(tmp_path / "run/metrics.jsonl") if "window_steps" in row] == [5, 10]


def test_memory_is_asked_for_once_in_a_window(
    tiny: MakeConfig, text: Path, fake_cuda: FakeCuda, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = build(tiny(), torch.device("cpu"), open_data(text, 256, 32))
    context.device = torch.device("cuda", 1)
    monkeypatch.setattr("reference_trainer.metrics.log_window.power_meter", lambda _: SimpleNamespace(watts=lambda: 1))
    window = LogWindow(context, RunOptions(), lambda *_, **__: None, lambda line: None)
    steps = [StepResult(number, 5.0, 1.0, 1e-3, 0.1, True) for number in range(1, 11)]
    fake_cuda.calls.clear()
    rows = window.rows(steps, 1.0)
    assert fake_cuda.calls == {"memory_stats": 1, "mem_get_info": 1}
    assert {(row["allocated_bytes"], row["reserved_bytes"]) for row in rows} == {(2**30, 2**30)}
    assert rows[-1]["alloc_retries"] == 0 and "alloc_retries" not in rows[0]


def test_joules_per_token_are_watts_over_speed(
    tiny: MakeConfig, train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    watts: Iterator[float | None] = iter([None, 100.0])
    monkeypatch.setattr(
        "reference_trainer.metrics.log_window.power_meter", lambda _: SimpleNamespace(watts=lambda: next(watts))
    )
    train(tiny(steps=4), log_every=2)
    silent, told = (row for row in objects(tmp_path / "run/metrics.jsonl") if "power_watts" in row)
    assert (silent["power_watts"], silent["joules_per_token"]) == (None, None)
    assert told["joules_per_token"] == pytest.approx(100.0 / told["window_tokens_per_second"], rel=1e-9)


def test_the_rows_of_a_long_run_hold_the_same_noise_scale_after_a_resume(
    tiny: MakeConfig, train: Train, tmp_path: Path
) -> None:
    config = tiny(steps=30, checkpoint_every=None)
    train(config, "whole", noise_scale=True)
    train(config, noise_scale=True, stop_after=25)
    train(config, noise_scale=True, resume=True)
    whole, parts = (objects(tmp_path / name / "metrics.jsonl") for name in ("whole", "run"))
    assert [row["noise_scale_tokens"] for row in parts] == [row["noise_scale_tokens"] for row in whole]
    assert any(row["noise_scale_tokens"] for row in whole[20:]) and whole[18]["noise_scale_tokens"] is None


def test_clipping_is_told_of_each_step(tiny: MakeConfig, train: Train, tmp_path: Path) -> None:
    for limit, told in ((1e-6, True), (1e6, False), (None, None)):
        train(tiny(steps=1, clip_norm=limit), f"run{limit}")
        (row,) = objects(tmp_path / f"run{limit}/metrics.jsonl")
        assert row["clipped"] is told and row["grad_norm"] > 1e-6


@pytest.mark.parametrize("peak", [1e12, None])
def test_fault_35_the_meters_are_recomputed_from_the_log(
    tiny: MakeConfig, train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, peak: float | None
) -> None:
    """Accumulation, a resume, evaluations between, a CPU; without a known peak there is no MFU, and never 0."""
    import time

    import reference_trainer.loop.evaluation as module

    opened = module.open_data
    monkeypatch.setattr(module, "open_data", lambda *a, **_: replace(opened(*a), validation=opened(*a)))

    def slowly(*_: Any) -> float:
        time.sleep(0.15)  # as long as many steps: in no step's or window's time
        return 3.0

    monkeypatch.setattr("reference_trainer.loop.results.evaluate", slowly)
    config = tiny(steps=12, accumulation=3, checkpoint_every=None)
    config = config.model_copy(update={"evaluation": EvaluationConfig(every=4)})
    known = {"flops_per_step": 10**9, "hardware_flops_per_step": 4 * 10**9 // 3, "peak_flops": peak, "log_every": 2}
    train(config, stop_after=6, **known)
    train(config, resume=True, **known)
    rows, events = objects(tmp_path / "run/metrics.jsonl"), objects(tmp_path / "run/events.jsonl")
    assert [row["step"] for row in rows] == list(range(1, 13))
    close = lambda value: pytest.approx(value, rel=0.01)  # noqa: E731
    for first, last in ((0, 6), (6, 12)):  # each call knows its own steps
        for i in range(first, last):
            row, seconds = rows[i], rows[i]["step_seconds"]
            assert row["tokens"] == (i + 1) * 192 and row["valid_tokens"] == 192
            assert row["tokens_per_second"] == close(192 / seconds)
            assert row["mfu"] == (None if peak is None else close(1e9 / seconds / 1e12))
            assert row["hfu"] == (None if peak is None else close(row["mfu"] * 4 / 3))
            recent = [r["step_seconds"] for r in rows[max(first, i + 1 - RECENT_STEPS) : i + 1]]
            assert row["eta_seconds"] == close((12 - row["step"]) * median(recent))
            assert row["data_share"] == close(row["data_seconds"] / seconds)
    for row in (row for row in rows if "window_steps" in row):
        inside = [r["step_seconds"] for r in rows[row["step"] - row["window_steps"] : row["step"]]]
        assert row["window_tokens_per_second"] == close(row["window_steps"] * 192 / row["window_seconds"])
        assert row["window_seconds"] == pytest.approx(sum(inside) + row["window_idle_seconds"], rel=0.01)
    told = [event for event in events if event["event"] == "evaluation"]
    assert [event["step"] for event in told] == [4, 8, 12] and all(event["seconds"] > 0.14 for event in told)
    begun = next(event for event in events if event["event"] == "start")
    assert begun["peak_flops"] == peak and begun["tokens_per_step"] == 192
    assert (
        "nothing recomputed" in begun["mfu_convention"] and "plus recomputation in backward" in begun["hfu_convention"]
    )
    assert all("validation_loss" in rows[step - 1] for step in (4, 8, 12))


def test_a_torn_line_is_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    assert list(read_rows(path)) == []
    path.write_text('{"step": 1}\n[2]\n{"step": 3}\n{"ste')
    assert [row["step"] for row in read_rows(path)] == [1, 3]


STALL = 60.0  # seconds


@pytest.mark.parametrize("place", ["before a step", "after a step", "after a reading", "between step and reading"])
def test_a_stall_is_seen_wherever_it_falls(
    tiny: MakeConfig, train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    """All time between the first step and the last reading belongs to one window. Only the clock stands still here."""
    import time

    from reference_trainer import train as loop
    from reference_trainer.checkpoint.saver import Saver
    from reference_trainer.metrics.metrics_file import MetricsFile

    real, shift = time.perf_counter, [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: real() + shift[0])
    owner, name, nth, after = {
        "before a step": (loop, "train_step", 15, False),
        "after a step": (loop, "train_step", 15, True),
        "after a reading": (MetricsFile, "write", 7, True),
        "between step and reading": (Saver, "check", 16, False),
    }[place]
    function, calls = getattr(owner, name), list[int]()

    def stalling(*args: Any, **named: Any) -> Any:
        calls.append(1)
        if len(calls) == nth and not after:
            shift[0] += STALL
        result = function(*args, **named)
        if len(calls) == nth and after:
            shift[0] += STALL
        return result

    monkeypatch.setattr(owner, name, stalling)
    said: list[str] = []
    begin = real()
    train(tiny(steps=20, checkpoint_every=None), said=said, log_every=2)
    assert shift == [STALL]
    windows = [row for row in objects(tmp_path / "run/metrics.jsonl") if "window_seconds" in row]
    assert STALL < sum(row["window_seconds"] for row in windows) < STALL + real() - begin
    assert [row["step"] for row in windows if row["window_idle_seconds"] >= STALL] == [16]
    (event,) = [e for e in objects(tmp_path / "run/events.jsonl") if e["event"] == "slow step"]
    assert event["step"] == 16 and event["seconds"] >= STALL
    assert any("up to step 16 the device waited" in line for line in said)
