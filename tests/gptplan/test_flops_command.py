"""`gptplan flops`: what it prints, with and without a length, as JSON, and for hardware that is not known."""

from __future__ import annotations

import json
from typing import Any

import jsonschema
import pytest

from planner.report.schemas import schemas
from planner.units import format_number
from tests.gptplan.calling import BASE, Call

SEVEN = ("--model", "llama-2-7b", "--seq", "4096", "--gpu", "h100-80gb", "--micro-batch", "1", "--accumulation", "4")


def said(call: Call, *words: str) -> dict[str, Any]:
    found = call("flops", *words, "--json")
    assert (found.code, found.err) == (0, "")
    document: dict[str, Any] = json.loads(found.out)
    jsonschema.validate(document, schemas()["flops"])
    return document


def test_without_a_length_it_is_per_token_and_step(call: Call) -> None:
    found = said(call, *SEVEN)
    totals = found["totals"]
    assert totals["run_tokens"] is totals["run_model"] is None
    assert all(c["run_flops"] is None for c in found["conventions"])
    assert totals["model_per_step"] == totals["model_per_token"] * 4 * 4096
    text = call("flops", *SEVEN).out
    assert "run of" not in text and "per step of 16,384 tokens" in text


@pytest.mark.parametrize("length", [("--tokens", "10B"), ("--steps", "100")])
def test_with_a_length_it_is_also_of_the_run(call: Call, length: tuple[str, str]) -> None:
    found = said(call, *SEVEN, *length)
    tokens = found["totals"]["run_tokens"]
    assert tokens == (10**10 if length[1] == "10B" else 100 * 4 * 4096)
    for c in found["conventions"]:
        assert c["run_flops"] == pytest.approx(c["flops_per_token"] * tokens)
    assert "run of" in call("flops", *SEVEN, *length).out


def test_the_conventions_stand_side_by_side_with_who_uses_each(call: Call) -> None:
    out = call("flops", *SEVEN).out
    for words in ("6·N", "llm-foundry", "nanoGPT", "Megatron-LM since 2025-03-06", "torchtitan", "Kaplan", "InternEvo"):
        assert words in out, words
    for convention in said(call, *SEVEN)["conventions"]:
        assert convention["used_by"] and convention["source"]
        assert f"  {convention['id']}\n" in out, "its users"
        assert format_number(convention["ratio"]) in out


def test_the_same_numbers_as_estimate(call: Call) -> None:
    words = (*BASE, "--activation-checkpointing", "full")
    estimated = json.loads(call("estimate", *words, "--json").out)
    found = said(call, *words)
    assert found["totals"]["run_model"] == estimated["flops"]["training_model"]
    assert found["totals"]["run_hardware"] == estimated["flops"]["training_hardware"]
    flags = next(c for c in found["conventions"] if c["id"] == "6n-typed")
    assert flags["run_flops"] == estimated["flops"]["training_6nd"] == 7.5e18


def test_a_config_file_is_counted_as_it_is(call: Call, run_toml: object) -> None:
    found = said(call, "--config", str(run_toml))
    assert found["totals"]["run_tokens"] == 10**10
    out = call("flops", "--config", str(run_toml)).out
    assert out.startswith("gpt2-12x768, 124,439,808 parameters, sequence 1,024\n")


def test_peaks_are_kept_apart_and_unknown_is_unknown(call: Call) -> None:
    found = said(call, *SEVEN)
    peaks = {d["name"]: d for d in found["denominators"]}
    assert list(peaks)[:5] == ["fp8", "fp16", "bf16", "tf32", "fp32"]
    assert peaks["bf16"]["used"] and peaks["bf16"]["flops_rate"] == 989_400_000_000_000
    assert "sparsity" in peaks["sparse-bf16"]["meaning"]
    v100 = {d["name"]: d for d in said(call, "--model", "gpt2", "--gpu", "v100-16gb")["denominators"]}
    assert v100["bf16"]["flops_rate"] is v100["bf16"]["mfu"] is None
    assert "unknown" in call("flops", "--model", "gpt2", "--gpu", "v100-16gb").out


def test_a_processor_has_no_peak(call: Call) -> None:
    found = said(call, "--model", "gpt2", "--gpu", "cpu")
    assert found["denominators"] == [] and all(c["utilisation"] is None for c in found["conventions"])
    out = call("flops", "--model", "gpt2", "--gpu", "cpu").out
    assert "Peaks of" not in out and "MFU unknown" in out


def test_what_is_wrong_is_one_message(call: Call) -> None:
    call("flops", "--model", "gpt3").refused("unknown model 'gpt3'")
    call("flops").refused("the model is missing")
    call("flops", "--model", "gpt2", "--tokens", "1B", "--steps", "5").refused("--tokens and --steps")
