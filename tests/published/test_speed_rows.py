"""Each physical correction of the predicted step time, on published rows that show it: right with it, wrong without.

The rows are in data/speed_rows.csv, each with its source, in the columns of benchmarks/speed_rows.py.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from benchmarks.accuracy_speed import ScoredSpeed, score_speed
from benchmarks.fit_constants import Constant
from benchmarks.speed_rows import read_speed_rows
from planner.rules import rules

ROWS = {row.id: row for row in read_speed_rows(Path(__file__).parent / "data" / "speed_rows.csv")}
COMPILED = "software.pytorch-2023.compiled"
# the correction: the row that shows it, constants as they were without it, and the least error that they make
CORRECTIONS: dict[str, tuple[str, Mapping[str, float], float]] = {
    "torch 2.0 compiled moves what eager moves": (
        "languini-a100-sxm-80gb-031",
        {f"{COMPILED}.traffic": 0.42, f"{COMPILED}.logits": 0.22, f"{COMPILED}.score_bytes": 26},
        0.15,
    ),
    "so does nanoGPT's of that year": ("nanogpt-003", {f"{COMPILED}.traffic": 0.42, f"{COMPILED}.logits": 0.22}, 0.2),
    "kernels of Triton 2.0 launch slowly": ("languini-a100-sxm-80gb-024", {f"{COMPILED}.host": 0.12}, 1.0),
    "cuBLAS 13 is fast at 768 channels": (
        "runpod-gpt-2-124m-single-gpu-029",
        {"software.pytorch-2026.small": 150},
        0.1,
    ),
    "so are llm.c's products": ("llm-c-001", {"software.transformer-engine-2024.small": 150}, 0.1),
    "a card of 72 W clocks below its data sheet": (
        "runpod-gpt-2-124m-single-gpu-021",
        {"family.72 W.gemm.all": 0.75},
        0.15,
    ),
    "Triton's attention is slow on an H100": (
        "llm-foundry-h100-bf16-009",
        {"family.hopper.attention.pytorch-2023": 0.40},
        0.25,
    ),
}


@contextmanager
def constants(values: Mapping[str, float]) -> Iterator[None]:
    table = rules("time")
    places = [(*Constant(path, 1.0, 1.0, "").place(table), value) for path, value in values.items()]
    before = [found[key] for found, key, _ in places]
    try:
        for found, key, value in places:
            found[key] = value
        yield
    finally:
        for (found, key, _), value in zip(places, before, strict=True):
            found[key] = value


def scored(name: str) -> ScoredSpeed:
    found = score_speed(ROWS[name])
    assert isinstance(found, ScoredSpeed), found
    return found


@pytest.mark.parametrize(("name", "without", "least"), CORRECTIONS.values(), ids=CORRECTIONS.keys())
def test_a_correction_mends_its_row(name: str, without: Mapping[str, float], least: float) -> None:
    right = scored(name)
    with constants(without):
        wrong = scored(name)
    assert abs(wrong.error) > least > abs(right.error) + 0.02
    assert right.inside


@pytest.mark.parametrize("name", ROWS)
def test_rows_lie_in_their_intervals_and_name_their_source(name: str) -> None:
    found = scored(name)
    assert found.inside and len(ROWS[name].source) > 10
    assert found.predicted.high is not None and found.predicted.low is not None
