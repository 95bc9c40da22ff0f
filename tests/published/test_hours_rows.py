"""Why GPT-NeoX's runs took the hours they did: each cause is a constant with its source, and the hours show it."""

from __future__ import annotations

import pytest

from benchmarks.accuracy_hours import ScoredHours, score_hours
from benchmarks.hours_rows import HoursRow, read_hours_rows
from tests.published.test_speed_rows import constants

# Biderman et al. 2023 (arXiv 2304.01373), table 5: parameters, GPU-hours on A100-40GB
PYTHIA = {
    "Pythia-160M": (162_322_944, 1_030), "Pythia-410M": (405_334_016, 2_540), "Pythia-1.4B": (1_414_647_808, 7_120),
    "Pythia-2.8B": (2_775_208_960, 14_240), "Pythia-6.9B": (6_857_302_016, 33_500),
}  # fmt: skip
COLUMNS = "model,params,tokens,gpu,gpu_hours,seq_len,hours_include,confidence,arch,precision,notes,source,n_gpus"
NEOX = "software.gpt-neox-2023"


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> dict[str, HoursRow]:
    lines = [
        f"{name},{count},299892736000,A100 SXM 40GB,{hours},2048,one full 300B-token run,high,dense,fp16,,a paper,"
        for name, (count, hours) in PYTHIA.items()
    ]
    path = tmp_path_factory.mktemp("hours") / "pythia.csv"
    path.write_text("\n".join([COLUMNS, *lines]) + "\n", encoding="utf-8")
    return {row.model: row for row in read_hours_rows(path)}


def error(row: HoursRow) -> float:
    scored = score_hours(row)
    assert isinstance(scored, ScoredHours), scored
    return scored.error


@pytest.mark.parametrize("name", PYTHIA)
def test_runs_with_flash_attention_are_within_a_tenth(rows: dict[str, HoursRow], name: str) -> None:
    assert abs(error(rows[name])) < 0.1


CAUSES: dict[str, tuple[str, dict[str, float], float]] = {
    "FlashAttention 1 has half the rate of its successor": (
        "Pythia-410M",
        {"family.ampere.attention.gpt-neox-2023": 0.469},
        0.08,
    ),
    "copies around rotary embedding and attention": ("Pythia-1.4B", {f"{NEOX}.traffic_unit": 97.9}, 0.04),
    "gradients are reduced after backward": ("Pythia-2.8B", {f"{NEOX}.reduces_after_backward": 0.0}, 0.01),
}


@pytest.mark.parametrize("cause", CAUSES)
def test_without_a_cause_the_hours_are_too_few(rows: dict[str, HoursRow], cause: str) -> None:
    name, without, more = CAUSES[cause]
    with_it = error(rows[name])
    with constants(without):
        assert error(rows[name]) < with_it - more
