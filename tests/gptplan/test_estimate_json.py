"""`estimate --json` is a contract: scripts read these keys, in base units, and unknown is null."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import jsonschema
import pytest

from planner.analysis.findings import findings
from planner.document import document
from planner.inputs.draft import draft
from planner.inputs.flags import Flags
from planner.plan import Plan, estimate
from planner.report.plan import summary
from planner.report.schemas import schemas

KEYS = {
    "": "schema_version config tokens model flops batch memory throughput time cost schedule findings assumptions",
    "tokens": "requested trained",
    "model.parameters": "nominal total embedding non_embedding active",
    "model.shape": "layers hidden heads kv_heads head_dim ffn vocab seq",
    "flops": "training_6nd training_model training_hardware per_token_model per_step_model",
    "batch": "micro_batch accumulation data_parallel sequences_per_step tokens_per_step steps warmup_steps "
    "warmup_tokens epochs",
    "memory": "rule_14_bytes weights_bytes master_weights_bytes gradients_bytes optimizer_bytes activations_bytes "
    "logits_bytes temporary_bytes peak_requested_bytes peak_allocated_bytes peak_reserved_bytes device_used_bytes "
    "usable_bytes fits fits_by fits_unknown peak_phase at_peak phases peak_allocated_bytes_low "
    "peak_allocated_bytes_high",
    "throughput": "tokens_per_second tokens_per_second_per_gpu step_seconds mfu hfu mfu_convention basis "
    "tokens_per_second_low tokens_per_second_high step_seconds_low step_seconds_high mfu_low mfu_high",
    "time": "seconds gpu_hours gpu_hours_low gpu_hours_high",
    "cost": "usd usd_per_gpu_hour energy_kwh co2e_kg usd_low usd_high",
    "schedule": "kind peak_lr min_lr points",
}


def planned(changed: dict[str, Any] | None = None, **flags: str) -> Plan:
    config = draft(Flags(**flags), as_of="2026-11-21", version="test")
    model = config.model.model_copy(update=changed or {})
    return estimate(config.model_copy(update={"model": model}), replay=True)


def estimated(changed: dict[str, Any] | None = None, **flags: str) -> dict[str, Any]:
    plan = planned(changed, **flags)
    found: dict[str, Any] = json.loads(json.dumps(document(plan, findings(plan)), allow_nan=False))
    return found


def leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from leaves(inner, f"{path}.{key}")
    elif isinstance(value, list):
        for i, inner in enumerate(value):
            yield from leaves(inner, f"{path}[{i}]")
    else:
        yield path, value


@pytest.mark.parametrize("section", KEYS)
def test_keys(section: str) -> None:
    found: Any = estimated(params="125M", tokens="10B", gpu="a100-80gb")
    for part in section.split(".") if section else []:
        found = found[part]
    assert set(KEYS[section].split()) <= set(found)


def test_the_training_chain_through_json() -> None:
    found = estimated(params="125M", tokens="10B", gpu="a100-80gb", gpus="8", tflops="150", price_per_gpu_hour="2.5")
    assert found["flops"]["training_6nd"] == 7.5e18
    assert found["time"]["seconds"] / 3600 == pytest.approx(1.7361, abs=5e-5)
    assert found["time"]["gpu_hours"] == pytest.approx(13.889, abs=5e-4)
    assert found["cost"]["usd"] == pytest.approx(34.72, abs=5e-3)
    assert found["memory"]["rule_14_bytes"] == 1_750_000_000
    assert found["batch"]["steps"] == 19_073
    assert found["throughput"]["basis"] == "given"
    assert found["model"]["parameters"]["nominal"] == 125_000_000


def test_rows_1_6_1_7_1_9_1_12_1_13_1_15_1_17_through_json() -> None:
    small = estimated(model="gpt2", steps="100", micro_batch="4", accumulation="8", gpus="4")
    assert small["batch"]["sequences_per_step"] == 128
    large = estimated(
        model="llama-2-7b", seq="4096", micro_batch="2", accumulation="16", gpus="8", tokens="15T", warmup_steps="2000"
    )
    assert large["batch"]["tokens_per_step"] == 1_048_576
    assert large["batch"]["warmup_tokens"] == 2000 * 1_048_576
    seven = estimated(params="7B", tokens="1T", tflops="150", price_per_gpu_hour="2.5")
    assert seven["flops"]["training_6nd"] == 4.2e22
    assert round(seven["time"]["gpu_hours"]) == 77_778 and round(seven["cost"]["usd"]) == 194_444
    assert seven["memory"]["rule_14_bytes"] == 98 * 10**9
    assert estimated(params="125M", tokens="10B")["schedule"]["peak_lr"] == 6e-4
    eight = estimated(model="gpt2", steps="100", micro_batch="8", accumulation="2", gpus="4")
    assert eight["batch"]["sequences_per_step"] == 64
    shares = estimated(params="125M", tokens="10B", warmup_steps="2000")
    assert 100 * shares["batch"]["warmup_share"] == pytest.approx(10.49, abs=5e-3)


def test_schedule_points_are_rates_of_updates() -> None:
    points = estimated(
        params="125M", steps="10000", peak_lr="3e-4", min_lr="3e-5", warmup_steps="2000", micro_batch="1", gpu="cpu"
    )["schedule"]["points"]
    rates = {p["step"]: p["lr"] for p in points}
    assert rates[2000] == 3e-4 and rates[6000] == pytest.approx(1.65e-4) and rates[10000] == pytest.approx(3e-5)


def test_at_peak_sums_to_the_peak() -> None:
    memory = estimated(params="125M", tokens="10B")["memory"]
    assert sum(memory["at_peak"].values()) == memory["peak_requested_bytes"]
    for phase in memory["phases"]:
        assert sum(phase["at_peak"].values()) == phase["peak_bytes"]


def test_unknown_is_null_and_nothing_is_infinite() -> None:
    found = estimated(params="125M", tokens="10B", gpu="v100-32gb")  # a card without bf16
    assert found["throughput"]["tokens_per_second"] is None and found["throughput"]["basis"] == "unknown"
    assert found["time"]["gpu_hours"] is None and found["cost"]["usd"] is None and found["batch"]["epochs"] is None
    assert "unknown_speed" in {f["code"] for f in found["findings"]}
    for path, value in leaves(found):
        assert not isinstance(value, float) or math.isfinite(value), path


def test_given_speed_has_no_interval_and_predicted_speed_has_a_wide_one() -> None:
    given = estimated(params="125M", tokens="10B", mfu="40%")["throughput"]
    assert given["tokens_per_second_low"] == given["tokens_per_second_high"] == given["tokens_per_second"]
    assert given["mfu"] == pytest.approx(0.4)
    predicted = estimated(params="125M", tokens="10B")["throughput"]
    assert predicted["tokens_per_second_low"] < 0.8 * predicted["tokens_per_second"]
    assert predicted["tokens_per_second_high"] > 1.25 * predicted["tokens_per_second"]


def test_the_printed_schemas_hold_for_what_is_printed() -> None:
    known = schemas()
    for validator in known.values():
        jsonschema.Draft202012Validator.check_schema(validator)
    for flags in ({"params": "125M"}, {"model": "llama-2-7b", "gpu": "v100-32gb", "activation_checkpointing": "full"}):
        found = estimated(tokens="10B", **flags)
        jsonschema.validate(found, known["plan"])
        jsonschema.validate(found["config"], known["config"])
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**estimated(params="125M", tokens="10B"), "tokens": {}}, known["plan"])


def test_the_command_prints_the_same_object() -> None:
    arguments = ["estimate", "--params", "125M", "--tokens", "10B", "--gpu", "a100-80gb", "--json"]
    done = subprocess.run([sys.executable, "-m", "gptplan", *arguments], capture_output=True, text=True, check=True)
    printed = json.loads(done.stdout)
    expected = estimated(params="125M", tokens="10B", gpu="a100-80gb")
    for part in ("tokens", "model", "flops", "batch", "memory", "throughput", "schedule"):
        assert printed[part] == expected[part]


SHORT = {"params": "125M", "tokens": "10B", "seq": "1024"}
BOUND = {"micro_batch": "300", "runtime": "compiled", "dropout": "0.1"}
# code: what a model's config is changed to have, and flags
UNKNOWN: dict[str, tuple[dict[str, Any], dict[str, str]]] = {
    "no_usable_bytes": ({}, {"gpu": "cpu"}),
    "no_cuda_total": ({}, {"gpu": "rtx-5090", "micro_batch": "30", "runtime": "eager"}),
    "upper_bound_only": ({}, {"gpu": "a100-80gb"} | BOUND),
    "not_simulated": ({"attention_sinks": True}, {"gpu": "h100-80gb"}),
}


@pytest.mark.parametrize("code", UNKNOWN)
def test_why_it_is_not_known_whether_a_plan_fits_is_a_code_and_a_sentence(code: str) -> None:
    changed, flags = UNKNOWN[code]
    found = estimated(changed, **SHORT, **flags)["memory"]
    assert found["fits"] is None and found["fits_unknown"]["code"] == code
    said = found["fits_unknown"]["why"]
    assert said and (code == "not_simulated" or found["fits_by"] == f"unknown: {said}")
    assert said in " ".join(summary(planned(changed, **SHORT, **flags), (), width=200).split())


@pytest.mark.parametrize(("micro_batch", "fits"), [("8", True), ("2000", False)])
def test_where_it_is_known_there_is_no_reason(micro_batch: str, fits: bool) -> None:
    memory = estimated(**SHORT, gpu="a100-80gb", micro_batch=micro_batch)["memory"]
    assert memory["fits"] is fits and memory["fits_unknown"] is None
