"""Scores of predicted speed: which row becomes which config, errors, intervals, classes, and rows left out."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path
from typing import Any

import pytest

from benchmarks import accuracy
from benchmarks.accuracy_speed import LeftSpeed, ScoredSpeed, is_cut_up, score_speed, speed_case
from benchmarks.speed_rows import SPEED_COLUMNS, SpeedRow, read_speed_rows
from planner.plan import estimate
from tests.benchmarks.made_rows import GPT2

SPEED = {name: cell for name, cell in GPT2.items() if name in SPEED_COLUMNS} | {
    "tokens_per_s_per_gpu": "50000",
    "tput_basis": "reported",
    "date": "2023-01",
}


def written(folder: Path, *rows: dict[str, str]) -> Path:
    path = folder / "speeds.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, SPEED_COLUMNS, restval="")
        writer.writeheader()
        writer.writerows(rows)
    return path


def row(folder: Path, **changes: str) -> SpeedRow:
    return read_speed_rows(written(folder, SPEED | changes))[0]


def scored(folder: Path, *rows: dict[str, str], capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    assert accuracy.main(["--throughput", str(written(folder, *rows)), "--json", "--rows"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert isinstance(found, dict)
    return found


def test_replicas_are_planned_as_such(tmp_path: Path) -> None:
    config = speed_case(row(tmp_path, sharding="zero1 (DeepSpeed)", dp="16", n_gpus="16")).config
    assert config.hardware.gpus == 16
    assert speed_case(row(tmp_path)).config.hardware.gpus == 1


def test_accumulation_follows_from_the_global_batch(tmp_path: Path) -> None:
    cells = {"grad_accum": "", "global_batch_seqs": "64", "n_gpus": "8", "dp": "8", "sharding": "ddp"}
    assert speed_case(row(tmp_path, **cells)).config.training.accumulation == 2
    odd = speed_case(row(tmp_path, **cells | {"global_batch_seqs": "65"}))
    assert odd.config.training.accumulation == 1 and "accumulation 1 assumed" in odd.mapping


def test_a_step_time_gives_the_speed_where_none_is_printed(tmp_path: Path) -> None:
    cells = {"tokens_per_s_per_gpu": "", "step_time_s": "0.5", "global_batch_seqs": "8", "tput_basis": ""}
    assert row(tmp_path, **cells).speed == 8 * 1024 / 0.5
    assert row(tmp_path, **cells | {"step_time_s": ""}).speed is None


def test_every_second_block_is_recomputed_where_a_table_says_so(tmp_path: Path) -> None:
    training = speed_case(row(tmp_path, act_ckpt="selective (every 2nd layer)")).config.training
    assert (training.activation_checkpointing, training.activation_checkpointing_every) == ("full", 2)


def test_a_compiled_program_is_timed_as_compiled_whatever_it_holds(tmp_path: Path) -> None:
    cells = {"compile": "default", "source_group": "languini A100"}
    assert speed_case(row(tmp_path, **cells)).config.training.runtime == "compiled"


EXCLUSIONS = {
    "not pre-training": {"task": "lora"},
    "sharded in another way": {"sharding": "zero1 (group=4)", "tp": "2", "n_gpus": "16"},
    "layout refused": {"tp": "5", "n_gpus": "5", "global_batch_seqs": "8"},
    "batch contradicts the layout": {"tp": "2", "n_gpus": "6", "global_batch_seqs": "8"},
    "layout of several GPUs not stated": {"sharding": "", "n_gpus": "8"},
    "not a dense model": {"arch": "moe"},
    "flagged by the table (quality C)": {"quality": "C"},
    "no measured speed": {"tokens_per_s_per_gpu": ""},
    "speed derived from a FLOP formula": {"tput_basis": "derived_from_tflops_with_source_formula"},
    "micro-batch or accumulation not a whole number": {"micro_batch": "2.5"},
    "GPU not mapped": {"gpu": "Voodoo 5 6000"},
    "attention kernel unknown": {"attn_kernel": "homemade"},
}


@pytest.mark.parametrize("reason", EXCLUSIONS)
def test_a_speed_that_cannot_be_scored_is_counted_under_its_reason(tmp_path: Path, reason: str) -> None:
    left = score_speed(row(tmp_path, **EXCLUSIONS[reason]))
    assert isinstance(left, LeftSpeed) and left.reason == reason
    assert isinstance(score_speed(row(tmp_path)), ScoredSpeed)  # the row without the change


@pytest.mark.parametrize("cells", [{"sharding": "zero2"}, {"sharding": "zero3"}, {"cp": "2"}, {"pp": "4"}])
def test_a_layout_that_is_not_replicas_is_cut_up(tmp_path: Path, cells: dict[str, str]) -> None:
    assert is_cut_up(row(tmp_path, n_gpus="8", dp="8", **cells))
    for kind in ("zero1 (group=8)", "ddp", "none", "ddp/zero1"):
        assert not is_cut_up(row(tmp_path, n_gpus="8", dp="8", sharding=kind))


LAYOUTS: dict[str, tuple[dict[str, str], dict[str, object]]] = {
    "tensor": ({"tp": "2", "n_gpus": "8", "sharding": "zero1"}, {"tp": 2, "zero": 1, "sp": False}),
    "pipeline": ({"pp": "2", "n_gpus": "4"}, {"pp": 2, "pp_schedule": "1f1b"}),
    "chunks": ({"pp": "2", "vp": "3", "n_gpus": "2"}, {"interleave": 3, "pp_schedule": "interleaved"}),
    "groups": ({"sharding": "fsdp4", "dp": "8", "n_gpus": "8"}, {"fsdp": True, "hsdp": 4}),
    "zero": ({"sharding": "zero3", "dp": "8", "n_gpus": "8"}, {"zero": 3}),
}


@pytest.mark.parametrize(("cells", "keys"), LAYOUTS.values(), ids=LAYOUTS.keys())
def test_a_layout_becomes_that_of_the_config(tmp_path: Path, cells: dict[str, str], keys: dict[str, object]) -> None:
    case = speed_case(row(tmp_path, **{"dp": "", "global_batch_seqs": "64"} | cells))
    config = case.config
    assert {name: getattr(config.parallel, name) for name in keys} == keys
    assert config.training.accumulation * config.training.micro_batch * config.data_parallel == 64
    assert config.model.vocab % config.parallel.tp == 0
    assert isinstance(score_speed(case.row), ScoredSpeed)


def test_errors_intervals_and_classes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plan = estimate(speed_case(row(tmp_path)).config).throughput
    speed, low, high = plan.tokens_per_second.value, plan.tokens_per_second.low, plan.tokens_per_second.high
    assert speed is not None and low is not None and high is not None

    def measured(id: str, group: str, value: float) -> dict[str, str]:
        return SPEED | {"id": id, "source_group": group, "tokens_per_s_per_gpu": repr(value)}

    rows = [
        measured("right", "a", speed),
        measured("slow", "a", speed * math.exp(0.1)),
        measured("far", "b", high * 3),
        measured("left", "b", speed) | {"gpu": "Voodoo 5 6000"},
    ]
    found = scored(tmp_path, *rows, capsys=capsys)
    assert [(g["source_group"], g["n"]) for g in found["groups"]] == [("a", 2), ("b", 1)]
    assert found["groups"][0]["median"] == pytest.approx(0.05)
    assert found["groups"][0]["p90"] == pytest.approx(0.09)
    errors = {r["id"]: r["error"] for r in found["rows"] if "error" in r}
    assert errors["slow"] == pytest.approx(-0.1) and errors["far"] == pytest.approx(math.log(speed / high / 3))
    assert found["median_of_group_medians"] == pytest.approx((0.05 - errors["far"]) / 2)
    assert found["coverage"] == pytest.approx(2 / 3)
    assert found["median_width"] == pytest.approx(math.log(high / low) / 2)
    assert found["excluded"] == {"GPU not mapped": 1}
    assert [r["id"] for r in found["outside"]] == ["far"]
    assert found["quality_a_dense_pretraining"] == {"n": 4, "expressible": 4, "expressible_kept": 3}
    assert found["by"]["gpu"][0]["class"] == "a100-80gb" and found["by"]["gpu"][0]["n"] == 3


def test_a_file_of_speeds_as_text(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    right = estimate(speed_case(row(tmp_path)).config).throughput.tokens_per_second.value
    rows = ({"tokens_per_s_per_gpu": repr(right)}, {"id": "odd", "gpu": "Voodoo 5 6000"}, {"tokens_per_s_per_gpu": "1"})
    path = written(tmp_path, *(SPEED | cells for cells in rows))
    assert accuracy.main(["--throughput", str(path), "--rows"]) == 0
    shown = capsys.readouterr().out
    for words in ("3 rows read, 2 scored", "inside the interval: 50.0 %", "GPU not mapped", "outside the interval"):
        assert words in shown


def test_a_file_of_speeds_that_cannot_be_used_is_one_message(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = written(tmp_path, SPEED | {"tokens_per_s_per_gpu": "fast"})
    assert accuracy.main(["--throughput", str(path)]) == 2
    shown = capsys.readouterr().err
    assert "tokens_per_s_per_gpu is 'fast'" in shown and shown.count("fix:") == 1
