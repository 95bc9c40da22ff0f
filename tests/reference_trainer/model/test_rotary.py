"""Rotary angles of a Hugging Face config, read and made, are those of transformers, within fp32 rounding."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

import pytest
import torch

from planner.counts.run import resolve
from planner.inputs.huggingface import model_of_hf_values
from planner.inputs.run_toml import config_from, config_text
from planner.memory.phases import simulate_run
from reference_trainer.model.positions import make_tables
from tests.reference_trainer.conftest import MakeConfig

FILE = Path(__file__).parents[2] / "published" / "data" / "hf_rotary.json"
CASES: dict[str, Any] = {case["case"]: case for case in json.loads(FILE.read_text(encoding="utf-8"))["cases"]}
CPU = torch.device("cpu")


def test_the_data_has_every_kind_that_is_trained() -> None:
    kinds = {model_of_hf_values(case["config"], FILE).rope_scaling for case in CASES.values()}
    assert {"linear", "dynamic", "yarn", "longrope"} == {scaling.kind for scaling in kinds if scaling}


@pytest.mark.parametrize("name", CASES)
def test_angles_are_those_of_transformers(name: str) -> None:
    case = CASES[name]
    model = model_of_hf_values(case["config"], FILE)
    tables = make_tables(model, case["length"], torch.float32, CPU)
    assert tables.cos is not None and tables.sin is not None
    local = tables.local_cos, tables.local_sin
    ours = {"full_attention": (tables.cos, tables.sin), "sliding_attention": local if local[0] is not None else None}
    for kind, theirs in case["tables"].items():
        for table, values in zip(ours[kind] or ours["full_attention"], theirs, strict=True):
            assert table is not None
            torch.testing.assert_close(table[case["at"], 0], torch.tensor(values), rtol=0, atol=1e-5)
    if "sliding_attention" in case["tables"]:  # a second table exactly where there are two
        assert (local[0] is None) == (case["tables"]["full_attention"] == case["tables"]["sliding_attention"])
    scaling = model.rope_scaling
    assert case["scores"] == pytest.approx(1.0 if scaling is None or model.mla is None else scaling.latent_score_factor)


def test_a_second_base_is_a_second_table_in_the_plan(tiny: MakeConfig) -> None:
    windows: dict[str, Any] = {"position": "rotary", "sliding_window": 8, "full_attention_every": 2}
    one, two = tiny(**windows), tiny(**windows, local_rope_base=50.0)
    tables = make_tables(two.model, two.training.seq, torch.float32, CPU)
    assert tables.local_cos is not None and tables.local_sin is not None
    more = tables.local_cos.nbytes + tables.local_sin.nbytes
    peaks = [simulate_run(resolve(config)).phases for config in (one, two)]
    assert [a.peak_bytes + more for a in peaks[0]] == [b.peak_bytes for b in peaks[1]]


@pytest.mark.parametrize("name", ["phi3 long", "deepseek yarn, two mscales", "gemma3 old"])
def test_a_written_file_gives_the_same_angles(tiny: MakeConfig, name: str) -> None:
    model = model_of_hf_values(CASES[name]["config"], FILE)
    config = tiny().model_copy(update={"model": model})
    assert config_from(tomllib.loads(config_text(config)), "run.toml").model == model
