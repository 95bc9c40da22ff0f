"""The post-mortem: its numbers come from the logs, and each problem is reported only where there is one."""

from __future__ import annotations

import json
import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from planner.config.run import RunConfig
from planner.errors import FileError
from planner.runs.comparison import ComparisonRow
from reference_trainer.metrics.records import RunResult
from reference_trainer.post_mortem import post_mortem_markdown, problems_of, summary_of, write_post_mortem

MakeConfig = Callable[..., RunConfig]
Train = Callable[..., RunResult]


def log(folder: Path, steps: int = 40, row: Callable[[int], dict[str, Any]] = lambda step: {}) -> list[dict[str, Any]]:
    """A healthy run: the loss falls, a step takes a second, nothing is clipped."""
    folder.mkdir(exist_ok=True)
    rows = []
    for step in range(1, steps + 1):
        healthy = {"step": step, "tokens": step * 1000, "loss": 5.0 - step / 40, "updated": True, "clipped": False}
        healthy |= {"tokens_per_second": 1000.0, "step_seconds": 1.0, "data_seconds": 0.01, "window_seconds": 1.0}
        rows.append(healthy | {"window_idle_seconds": 0.0, "mfu": 0.4, "alloc_retries": 0} | row(step))
    (folder / "metrics.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    return rows


def events(folder: Path, *kinds: dict[str, Any], end: str = "finished") -> None:
    all_of_them = [{"event": "start", "step": 0, "tokens_per_step": 1000}, *kinds, {"event": end, "step": 40}]
    (folder / "events.jsonl").write_text("".join(json.dumps(e) + "\n" for e in all_of_them))


def test_a_healthy_run_has_no_problem(tmp_path: Path) -> None:
    log(tmp_path), events(tmp_path)
    summary = summary_of(tmp_path)
    assert problems_of(summary) == () and "No problems found." in post_mortem_markdown(summary)
    assert (summary.first_loss, summary.last_loss) == (4.975, pytest.approx(4.2375))  # the median of the last 20
    assert summary.tokens_per_second == (1000.0, 1000.0, 1000.0) and summary.training_seconds == 40.0


@pytest.mark.parametrize(
    ("row", "told", "words"),
    [
        ({"loss": 6.0}, [], "The loss did not fall"),
        ({}, [{"event": "spike", "step": 7}], "1 loss spikes, steps 7:"),
        ({}, [{"event": "spike", "step": 7}, {"event": "rollback", "step": 4}], "1 rollbacks: check the data near"),
        ({"updated": False}, [], "40 updates were skipped, steps 1, 2, 3, 4, 5, 6, 7, 8 … (40 in all)"),
        ({"clipped": True}, [], "100 % of the steps were clipped"),
        ({"data_seconds": 0.2}, [], "20 % of the training time was spent waiting for data"),
        (
            {},
            [{"event": "checkpoint", "step": 3, "seconds": 10.0}],
            "20 % of the time was spent on evaluations, checkp",
        ),
        ({}, [{"event": "allocator retries", "step": 3, "count": 6}], "retried 6 times"),
        ({}, [{"event": "slow step", "step": 9}], "Slow steps: 9"),
        ({}, [{"event": "checkpoint failed", "step": 9}], "1 checkpoints could not be written"),
        ({"noise_scale_tokens": 400.0}, [], "1,000 tokens is above the gradient-noise scale of 400 at the end"),
        (
            {},
            [{"event": "evaluation", "step": 4, "loss": 3.0}, {"event": "evaluation", "step": 8, "loss": 3.5}],
            "rose from 3 (step 4) to 3.5",
        ),
    ],
)
def test_each_problem_is_found(tmp_path: Path, row: dict[str, Any], told: list[dict[str, Any]], words: str) -> None:
    log(tmp_path, row=lambda step: row), events(tmp_path, *told)
    (problem,) = problems_of(summary_of(tmp_path))
    assert words in problem
    assert f"1. {problem}" in post_mortem_markdown(summary_of(tmp_path))


def test_an_unsteady_speed_is_found(tmp_path: Path) -> None:
    log(tmp_path, row=lambda step: {"tokens_per_second": 300.0 if step % 8 == 0 else 1000.0}), events(tmp_path)
    (problem,) = problems_of(summary_of(tmp_path))
    assert "less than half of the usual speed" in problem


@pytest.mark.parametrize("end", ["diverged", "start"])
def test_how_it_ended_comes_first(tmp_path: Path, end: str) -> None:
    log(tmp_path, row=lambda step: {"clipped": True}), events(tmp_path, end=end)
    first, second = problems_of(summary_of(tmp_path))
    assert first.startswith("How the run ended: ") and ("diverged" in first or "died without an error message" in first)
    assert "clipped" in second


def test_peaks_stand_beside_their_prediction(tmp_path: Path) -> None:
    log(tmp_path), events(tmp_path)
    row = ComparisonRow("peak_allocated_bytes", "byte", 2**30, 2**31, 2.0, 0.05, "outside")
    comparison = {"schema_version": 1, "device_name": "d", "torch": "t", "basis": "given", "rows": [asdict(row)]}
    (tmp_path / "comparison.json").write_text(json.dumps(comparison))
    text = write_post_mortem(tmp_path).read_text()
    assert "| peak_allocated_bytes | 1 GiB | 2 GiB | outside |" in text
    assert "peak_allocated_bytes was 2 GiB, predicted 1 GiB" in text


def test_a_directory_without_a_step_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="has no metrics of a step") as caught:
        write_post_mortem(tmp_path)
    assert caught.value.remedy and not list(tmp_path.iterdir())


def test_a_real_run_is_summed_up_without_pytorch(
    tiny: MakeConfig, train: Train, tmp_path: Path, child_environment: dict[str, str]
) -> None:
    result = train(tiny(), noise_scale=True, stop_after=5)
    train(tiny(), resume=True)
    code = (
        "import sys, json; from pathlib import Path; from reference_trainer.post_mortem import summary_of\n"
        "s = summary_of(Path(sys.argv[1])); assert 'torch' not in sys.modules\n"
        "print(json.dumps([s.steps, s.calls, s.first_loss, s.ended, s.saving_seconds > 0]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "run")],
        env=child_environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(done.stdout) == [8, 2, result.losses[0], "finished", True]


def test_a_long_log_takes_eight_bytes_a_number(tmp_path: Path) -> None:
    """A post-mortem ends every run: a million steps would take 3 GB as objects, and end it by a kill."""
    numbers = {f"number_{i}": i + 0.5 for i in range(20)}
    row = {"tokens": 128, "loss": 2.5, "updated": True, "window_seconds": 0.1, "tokens_per_second": 1e3} | numbers
    lines = (json.dumps({"step": step} | row) + "\n" for step in range(1, 3001))
    (tmp_path / "metrics.jsonl").write_text("".join(lines))
    summary_of(tmp_path)  # what is made once
    tracemalloc.start()
    try:
        summary = summary_of(tmp_path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert (summary.steps, summary.first_loss, summary.training_seconds) == (3000, 2.5, pytest.approx(300))
    assert peak < 1_500_000, peak
