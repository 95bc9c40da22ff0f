"""Scores of predicted GPU-hours: a row asks what a user would ask, or is left out for a stated reason."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path

import pytest

from benchmarks import accuracy
from benchmarks.accuracy_hours import LeftHours, ScoredHours, hours_summary, score_hours
from benchmarks.accuracy_setup import read_table
from benchmarks.hours_rows import HOURS_COLUMNS, HoursRow, read_hours_rows
from planner import presets
from planner.inputs.draft import draft
from planner.inputs.flags import Flags
from planner.plan import estimate

LLAMA = {
    "model": "LLaMA-7B",
    "arch": "dense",
    "params": "6738415616",
    "tokens": "1000000000000",
    "gpu": "A100 SXM 80GB",
    "gpu_hours": "82432",
    "precision": "bf16",
    "seq_len": "2048",
    "hours_include": "final pre-training run",
    "confidence": "high",
    "source": "LLaMA paper (arXiv 2302.13971), table 15",
}


def written(folder: Path, *rows: dict[str, str]) -> Path:
    path = folder / "hours.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, HOURS_COLUMNS, restval="")
        writer.writeheader()
        writer.writerows(rows)
    return path


def row(folder: Path, **changes: str) -> HoursRow:
    return read_hours_rows(written(folder, LLAMA | changes))[0]


def test_hours_of_an_unknown_layout_are_those_of_the_plan_that_a_user_would_ask_for(tmp_path: Path) -> None:
    changes = {"model": "OLMo-2-7B", "params": ""}
    found = score_hours(row(tmp_path, n_gpus="512", **changes))
    flags = Flags(model="olmo-2-7b", tokens="1000000000000", gpu="a100-80gb", gpus="512", seq="2048")
    hours = estimate(draft(flags, as_of="2026-11-21", version="test")).time.gpu_hours
    assert isinstance(found, ScoredHours) and found.predicted == hours
    assert hours.value is not None and found.error == pytest.approx(math.log(hours.value / 82432))


def test_a_known_layout_is_planned_as_it_ran(tmp_path: Path) -> None:
    changes = {"model": "Pythia-410M", "params": "", "gpu": "A100 SXM 40GB", "n_gpus": "32", "tokens": "3e11"}
    found = score_hours(row(tmp_path, **changes))
    assert isinstance(found, ScoredHours)
    assert {"micro_batch 32", "activation_checkpointing full", "zero 1"} <= set(found.mapping)
    assert not any("assumed" in note or "default" in note for note in found.mapping)


def test_a_run_that_was_cut_up_is_planned_with_its_own_layout(tmp_path: Path) -> None:
    changes = {"model": "GPT-NeoX-20B", "params": "", "gpu": "A100 SXM 40GB", "tokens": "472473600000", "n_gpus": ""}
    found = score_hours(row(tmp_path, **changes))
    assert isinstance(found, ScoredHours) and {"tp 2", "pp 4", "accumulation 32"} <= set(found.mapping)
    summary = hours_summary([found.row], [found, score_hours(row(tmp_path))])
    assert summary["published_layouts"]["n"] == 1  # the layout of LLaMA-7B is in part assumed


def test_every_layout_has_a_source_and_flags_or_a_reason() -> None:
    for layout in read_table("hours_layouts")["layout"]:
        assert len(layout["source"]) > 10 and layout["models"]
        assert ("left_out" in layout) != bool(layout.get("flags")), layout["models"]
        known = {"micro_batch", "accumulation", "activation_checkpointing", "software"}
        assert not layout.get("published") or known <= set(layout["flags"]), layout["models"]


def test_hours_per_trillion_tokens_are_read_as_such(tmp_path: Path) -> None:
    whole, one = row(tmp_path), row(tmp_path, tokens="2000000000000", hours_include="PER TRILLION TOKENS (not the run)")
    first, second = score_hours(whole), score_hours(one)
    assert isinstance(first, ScoredHours) and isinstance(second, ScoredHours)
    assert first.error == pytest.approx(second.error, rel=1e-6)


EXCLUSIONS = {
    "an estimate, not a measurement": {"hours_include": "estimate by third party, not a measurement"},
    "flagged by the table (confidence low)": {"confidence": "low"},
    "hours or tokens not stated": {"gpu_hours": ""},
    "no preset of this model": {"model": "WeLM-10B"},
    "parameter count contradicts the preset": {"params": "13000000000"},
    "layout not published": {"model": "LLaMA-65B", "params": ""},
    "GPU not mapped": {"gpu": "TPU v4"},
}


@pytest.mark.parametrize("reason", EXCLUSIONS)
def test_hours_that_cannot_be_scored_are_counted_under_their_reason(tmp_path: Path, reason: str) -> None:
    left = score_hours(row(tmp_path, **EXCLUSIONS[reason]))
    assert isinstance(left, LeftHours) and left.reason == reason
    assert isinstance(score_hours(row(tmp_path)), ScoredHours)  # the row without the change


def test_a_file_of_hours(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = written(tmp_path, LLAMA | {"gpu_hours": "64000"}, LLAMA | {"gpu_hours": "1"}, LLAMA | {"model": "WeLM-10B"})
    assert accuracy.main(["--gpu-hours", str(path), "--json", "--out", str(tmp_path / "result.json")]) == 0
    found = json.loads(capsys.readouterr().out)
    kept = json.loads((tmp_path / "result.json").read_text(encoding="utf-8"))
    assert kept.pop("header")["command"] and kept == found
    assert (found["read"], found["scored"], found["coverage"]) == (3, 2, 0.5)
    assert found["excluded"] == {"no preset of this model": 1} and len(found["outside"]) == 1
    assert accuracy.main(["--gpu-hours", str(path), "--rows"]) == 0
    assert "no preset of this model" in capsys.readouterr().out


def test_the_models_in_the_table_of_names_are_presets() -> None:
    from benchmarks.accuracy_hours import _preset_names

    assert set(_preset_names().values()) <= set(presets.model_ids())
