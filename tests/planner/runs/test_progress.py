"""The numbers of a run with its plan's, from files as the trainer writes them."""

from __future__ import annotations

import json
import math
from dataclasses import asdict

import pytest

from planner.counts.run import steps_of
from planner.counts.schedule import schedule_rate
from planner.document import document
from planner.inputs.draft import draft
from planner.inputs.flags import Flags
from planner.inputs.run_toml import config_text
from planner.plan import estimate
from planner.report.run import STAGES, curve_lines, curves, event_lines, failure_lines, figure_lines, stage_text
from planner.runs.comparison import Comparison, ComparisonRow
from planner.runs.progress import POINTS, Record, Series, run_figures, stage

TINY = Flags(layers="2", hidden="32", heads="2", vocab="64", seq="16", tokens="51200", global_batch_tokens="256",
             micro_batch="8", gpu="a100-80gb", recipe="fp32")  # fmt: skip


@pytest.fixture(scope="module")
def plan():
    return estimate(draft(TINY, as_of="2026-01-31", version="0.test"), replay=True)


def row(step, **other):
    return {"step": step, "tokens": 256 * step, "loss": 4.0 - step / 100, "lr": 1e-3, "grad_norm": 1.0,
            "step_seconds": 0.5, "tokens_per_second": 512.0, "eta_seconds": 7.0, "allocated_bytes": 1000,
            "reserved_bytes": 2000} | other  # fmt: skip


@pytest.fixture
def run(tmp_path, plan):
    (tmp_path / "plan.json").write_text(json.dumps(document(plan, ())))
    (tmp_path / "config.toml").write_text(config_text(plan.config))
    event(tmp_path, "start", step=0, tokens_per_step=256, flops_per_step=1000, peak_flops=1e6)
    return tmp_path


def event(directory, name, **facts):
    with (directory / "events.jsonl").open("a") as file:
        file.write(json.dumps({"time": "2026-01-31T10:11:12.000+00:00", "event": name} | facts) + "\n")


def write(directory, rows, mode="a"):
    with (directory / "metrics.jsonl").open(mode) as file:
        file.writelines(json.dumps(r) + "\n" for r in rows)


def by_label(record, resident=None):
    return {f.label: f for f in run_figures(record, resident)}


def test_each_number_stands_beside_its_prediction(run, plan):
    write(run, [row(i) for i in range(1, 11)] + [row(11, validation_loss=3.5), row(12, validation_loss=3.75)])
    record = Record(run)
    assert record.read_on() is False
    found = by_label(record)
    assert (found["step"].measured, found["step"].predicted) == (12, steps_of(plan.config))
    assert found["learning rate"].predicted == schedule_rate(plan.config.schedule, steps_of(plan.config), 12)
    assert found["tokens/s"].measured == 512 and found["tokens/s"].predicted == plan.throughput.tokens_per_second.value
    assert found["tokens/s"].ratio == 512 / plan.throughput.tokens_per_second.value
    assert found["MFU"].measured == pytest.approx(1000 / (0.5 * 1e6))
    assert found["allocated"].predicted == plan.memory.peak_allocated_bytes.value
    assert found["reserved"].measured == 2000
    assert found["time left"].predicted == plan.throughput.step_seconds.value * (steps_of(plan.config) - 12)
    assert found["validation loss"].measured == 3.75 and "best 3.5" in found["validation loss"].note


def test_a_processor_has_the_memory_of_its_process(run):
    write(run, [row(1, allocated_bytes=None, reserved_bytes=None)])
    record = Record(run)
    record.read_on()
    assert by_label(record, 5)["process memory"].measured == 5
    assert not {"process memory", "allocated"} & set(by_label(record))


def test_a_processor_has_its_tensors_peak_when_the_run_is_over(run, plan):
    write(run, [row(1, allocated_bytes=None, reserved_bytes=None)])
    record = Record(run)
    record.read_on()
    peak = by_label(record)["peak of tensors"]
    assert (peak.measured, peak.predicted) == (None, plan.memory.peak_requested_bytes) and "over" in peak.note
    (run / "comparison.json").write_text('{"rows": [{"key": "peak_requested_bytes", "measured": 12')
    record.read_on()
    assert by_label(record)["peak of tensors"].measured is None
    compared = ComparisonRow("peak_requested_bytes", "bytes", 12, 12, 1.0, 0.0, "within")
    (run / "comparison.json").write_text(json.dumps(asdict(Comparison(1, "cpu", "2.13", "datasheet", (compared,)))))
    record.read_on()
    assert by_label(record)["peak of tensors"].measured == 12 and not by_label(record)["peak of tensors"].note


def test_a_continuation_has_a_speed_of_its_own(run):
    write(run, [row(i) for i in range(1, 11)])
    event(run, "stopped", step=10)
    event(run, "resume", step=10, tokens_per_step=256)
    write(run, [row(i, step_seconds=0.25) for i in range(11, 14)])
    for record in (Record(run), Record(run)):
        record.read_on()
        found = by_label(record)["tokens/s"]
        assert found.measured == 1024 and found.note == "median of 3 steps"


def test_rows_that_a_rollback_unmade_are_forgotten(run):
    write(run, [row(i) for i in range(1, 21)])
    record = Record(run)
    record.read_on()
    write(run, [row(i) for i in range(1, 11)], "w")
    record.read_on()
    assert record.last["step"] == 10 and record.loss.steps == list(range(1, 11)) and len(record.recent) == 10


def test_files_that_are_not_there_or_damaged_are_unknown_numbers(tmp_path):
    record = Record(tmp_path)
    record.read_on()
    (tmp_path / "plan.json").write_text("{")
    (tmp_path / "config.toml").write_text("x")
    write(tmp_path, [{"step": "x"}, {"loss": 1}, {"step": 3, "loss": None}, {"step": 4, "lr": "no"}])
    record.read_on()
    found = by_label(record)
    assert found["step"].measured == 3 and found["loss"].measured is None and found["learning rate"].predicted is None
    assert len(record.loss) == 0
    assert record.skipped_lines == found["skipped lines"].measured == 3
    assert figure_lines(run_figures(record), 60) and curves(record, width=60, height=5)


def test_a_long_curve_keeps_a_bounded_number_of_points():
    series = Series()
    for step in range(1, 50_001):
        series.add(step, float(step))
    assert POINTS / 2 <= len(series) <= POINTS
    gaps = [b - a for a, b in zip(series.steps, series.steps[1:], strict=False)]
    assert max(gaps) <= 4 * min(gaps[1:]) and series.steps[-1] > 49_000
    assert all(series.at()(step) <= step for step in series.steps)
    series.add(50_001, math.nan)
    assert all(map(math.isfinite, series.values))


@pytest.mark.parametrize(
    "events, owned, alive, code, asked, expected",
    [
        ([], False, None, None, False, "nothing"),
        ([], False, True, None, False, "starting"),
        (["start"], True, True, None, False, "running"),
        (["start"], True, None, None, False, "running"),  # attached
        (["start"], True, None, None, True, "stopping"),
        (["start", "stopped"], False, None, None, False, "stopped"),
        (["start", "finished"], False, True, None, False, "closing"),
        (["start", "finished"], False, False, 0, False, "finished"),
        (["start"], False, None, None, False, "gone"),
        (["start"], False, False, -9, True, "gone"),
        ([], False, False, 2, False, "failed"),
        ([], False, False, 130, True, "stopped"),
        (["start", "diverged"], False, None, None, False, "failed"),
        (["start", "stopped", "resume"], True, None, None, False, "running"),
    ],
)
def test_where_a_run_stands(tmp_path, events, owned, alive, code, asked, expected):
    for name in events:
        event(tmp_path, name, step=1)
    record = Record(tmp_path)
    record.read_on()
    assert stage(record, owned=owned, alive=alive, code=code, asked=asked) == expected
    assert stage_text(expected, code).startswith(STAGES[expected])


def test_a_curve_that_stays_high_is_drawn_from_its_lowest_value():
    high, wide = Series(), Series()
    for step in range(1, 100):
        high.add(step, 5.0 - step / 100)
        wide.add(step, 5.0 - step / 25)
    drawn = curve_lines("loss", high, width=60, height=9)
    assert drawn[1].split()[0] == "4.99" and drawn[9].split()[0] == "4.01"
    assert all(any("\u2800" < c <= "\u28ff" for c in line) for line in drawn[1:10])  # no row is empty
    assert curve_lines("loss", wide, width=60, height=9)[9].split()[0] == "0"


def test_lines_keep_to_the_width(run):
    write(run, [row(i) for i in range(1, 50)])
    event(run, "stopped", step=9, message="loss is not finite\nwhy: rate", exit_code=1)
    record = Record(run)
    record.read_on()
    for width in (56, 70, 120, 190):
        lines = figure_lines(run_figures(record), width) + curves(record, width=width, height=6)
        lines += event_lines(record.events, 5, width) + failure_lines([], record.events[-1], width)
        assert max(map(len, lines)) <= width, width
    assert "stopped" in event_lines(record.events, 5, 80)[0]  # the newest first
    assert failure_lines(["error: a", "  fix: b"], None, 40) == ["  error: a", "    fix: b"]
    assert len(curve_lines("loss", Series(), width=50, height=5)) == 1
