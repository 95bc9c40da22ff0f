"""The FLOPs of a config.json's dense model are those that PyTorch counts in transformers' own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from planner.config.run import RunConfig
from planner.counts.flops import operators_of
from planner.inputs.draft import draft
from planner.inputs.flags import Flags
from planner.inputs.huggingface import FAMILIES, model_of_hf_values
from planner.inputs.huggingface.remote import REMOTE_FAMILIES
from tests.planner.inputs.test_huggingface import CASES, HERE

FILE = Path(__file__).parents[2] / "published" / "data" / "hf_flops.json"
COUNTED: dict[str, Any] = json.loads(FILE.read_text(encoding="utf-8"))
LENGTH, SEQUENCES = COUNTED["length"], COUNTED["sequences"]


def config_of(values: dict[str, Any]) -> RunConfig:
    """A run of the model with sequences as long as those that were counted."""
    flags = Flags(
        family="gpt2", layers="1", hidden="64", seq=str(LENGTH), steps="10", micro_batch=str(SEQUENCES), gpu="cpu"
    )
    config = draft(flags, as_of="2026-11-21", version="test")
    return config.model_copy(update={"model": model_of_hf_values(values, HERE)})


@pytest.mark.parametrize("case", COUNTED["forward"])
def test_forward_flops_are_those_that_pytorch_counts(case: str) -> None:
    config = config_of(CASES[f"{COUNTED['transformers']} {case}"]["config"])
    ours = SEQUENCES * LENGTH * sum(operator.forward for operator in operators_of(config))
    model = config.model
    # transformers makes the angles of rotary embedding by a product of frequencies and positions; it is no part of 2N
    angles = model.rope_dim * LENGTH if model.position == "rotary" else 0
    assert COUNTED["forward"][case] - ours in (0, angles)


def test_every_dense_family_is_counted() -> None:
    dense = {case["config"]["model_type"] for case in CASES.values() if not _has_experts(case["config"])}
    counted = {CASES[f"{COUNTED['transformers']} {case}"]["config"]["model_type"] for case in COUNTED["forward"]}
    assert counted == dense - {"deepseek_v3"} and dense <= set(FAMILIES) - set(REMOTE_FAMILIES)


def _has_experts(values: dict[str, Any]) -> bool:
    return model_of_hf_values(values, HERE).moe is not None
