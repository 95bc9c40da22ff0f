"""Absurd numbers are a finding each, and what real runs have is none."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from planner import presets
from planner.analysis import plausible
from planner.analysis.findings import findings
from planner.analysis.plausible import plausibility_findings
from planner.inputs.draft import draft
from planner.inputs.flags import Flags
from planner.plan import Plan, estimate


def planned(**texts: str) -> Plan:
    typed = {"model": "gpt2", "tokens": "10B", "gpu": "a100-80gb", **texts}
    if "steps" in texts:
        del typed["tokens"]
    return estimate(draft(Flags(**typed), as_of="2026-11-21", version="test"))


ABSURD = {
    "odd_price": [{"price_per_gpu_hour": "1e30"}, {"price_per_gpu_hour": "1e-30"}, {"price_per_gpu_hour": "1001"}],
    "odd_gpus": [{"gpus": "1e9", "tokens": "1e17"}],
    "odd_tokens": [{"tokens": "1e18"}],
    "odd_seq": [{"model": "llama-2-7b", "seq": "1e12", "tokens": "1e18"}],
    "odd_batch": [{"micro_batch": "1e9", "tokens": "1e15"}],
    "odd_steps": [{"steps": "1e18"}],
    "odd_parameters": [{"model": "gpt2", "hidden": "120M"}],
    "odd_speed": [{"mfu": "1e-30"}, {"tflops": "1e-199"}, {"tflops": "0.15"}],
    "odd_time": [{"mfu": "1e-30"}, {"tokens": "1e18"}],
    "mfu_above_one": [{"model": "llama-2-7b", "tflops": "290"}],
}
CASES = [(code, texts) for code, each in ABSURD.items() for texts in each]


@pytest.mark.parametrize(("code", "texts"), CASES, ids=str)
def test_an_absurd_number_is_a_warning_with_a_remedy(code: str, texts: dict[str, str]) -> None:
    found = {f.code: f for f in findings(planned(**texts))}
    assert found[code].level == "warning" and found[code].remedy


def test_no_code_is_without_a_test() -> None:
    text = Path(plausible.__file__).read_text(encoding="utf-8")
    assert set(re.findall(r'"(odd_[a-z]+|mfu_above_one)"', text)) == set(ABSURD)


@pytest.mark.parametrize("name", presets.model_ids())
def test_no_published_model_on_a_large_cluster_is_odd(name: str) -> None:
    seq = min(4096, presets.model(name).shape["context"])
    plan = planned(model=name, tokens="15T", gpu="h100-80gb", gpus="1024", mfu="0.4", seq=str(seq), micro_batch="1")
    assert list(plausibility_findings(plan)) == []
