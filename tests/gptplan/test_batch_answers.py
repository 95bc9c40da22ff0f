"""`gptplan batch`: the answers about batch, steps, data and another batch's rate, number by number."""

from __future__ import annotations

import json
import re
from typing import Any

import jsonschema
import pytest

from planner.formulas.batch import (
    batch_of_the_rate,
    critical_batch,
    linear_scaled_rate,
    sqrt_scaled_rate,
)
from planner.inputs.batch import nearest_batches
from planner.report.schemas import schemas
from tests.gptplan.calling import BASE, Call

SCHEMA = jsonschema.Draft202012Validator(schemas()["batch"])


def answers(call: Call, line: str) -> dict[str, Any]:
    said = call("batch", *line.split(), "--json")
    assert (said.code, said.err) == (0, ""), said
    found: dict[str, Any] = json.loads(said.out, parse_constant=pytest.fail)
    SCHEMA.validate(found)
    return found


def test_the_schema_refuses_a_missing_answer(call: Call) -> None:
    found = answers(call, "--tokens 1T --global-batch-tokens 1M")
    for name in found:
        assert not SCHEMA.is_valid({key: value for key, value in found.items() if key != name}), name
    assert not SCHEMA.is_valid({**found, "steps": "many"})


@pytest.mark.parametrize(
    "row, line, expected",
    [
        ("1.5", "--tokens 10B --global-batch-tokens 524288", {"steps": 19_073, "steps_exactly": 19_073.486328125}),
        ("1.6", "--micro-batch 4 --accumulation 8 --gpus 4", {"sequences_per_step": 128}),
        ("1.7", "--micro-batch 2 --seq 4096 --accumulation 16 --gpus 8", {"tokens_per_step": 1_048_576}),
        ("1.8", "--tokens 1T --global-batch-tokens 1M", {"steps": 1_000_000}),
        ("1.8", "--tokens 1T --global-batch-tokens 1Mi", {"steps": 953_674}),
        ("1.9", "--warmup-steps 2000 --global-batch-tokens 4Mi --tokens 15T", {"warmup_tokens": 8_388_608_000}),
        ("1.17", "--micro-batch 8 --accumulation 2 --gpus 4", {"sequences_per_step": 64}),
    ],
)
def test_answer(call: Call, row: str, line: str, expected: dict[str, float]) -> None:
    found = answers(call, line)
    assert {key: found[key] for key in expected} == expected, row


def test_1_9_and_1_15_shares_of_the_warm_up(call: Call) -> None:
    line = "--warmup-steps 2000 --global-batch-tokens 4Mi --tokens 15T"
    assert 100 * answers(call, line)["warmup_share"] == pytest.approx(0.0559, abs=5e-5)
    assert "0.0559 % of the steps" in call("batch", *line.split()).out
    share = answers(call, "--warmup-steps 2000 --steps 19073")["warmup_share"]
    assert 100 * share == pytest.approx(10.49, abs=5e-3)


def test_1_19_windows_and_sequences(call: Call) -> None:
    found = answers(call, "--dataset-tokens 100 --seq 8")["data"]
    assert (found["windows"], found["sequences"], found["epochs"]) == (92, 12, None)
    text = call("batch", "--dataset-tokens", "100", "--seq", "8").out
    assert re.search(r"sequences of 8 +12 ", text) and re.search(r"windows +92 ", text)
    short = answers(call, "--dataset-tokens 8 --seq 8")["data"]
    assert (short["windows"], short["sequences"]) == (None, None)


def test_epochs_and_what_repeats_are_worth(call: Call) -> None:
    found = answers(call, "--dataset-tokens 1B --tokens 4B")["data"]
    assert found["epochs"] == 4 and found["worth_tokens"] == pytest.approx(3.7257e9, rel=1e-4)
    once = answers(call, "--dataset-tokens 1B --tokens 500M")["data"]
    assert (once["epochs"], once["worth_tokens"]) == (0.5, 5e8)


def test_3_13_batch_doubled_at_3e_4(call: Call) -> None:
    assert linear_scaled_rate(3e-4, 2**19, 2**20) == pytest.approx(6e-4, rel=1e-12)
    assert sqrt_scaled_rate(3e-4, 2**19, 2**20) == pytest.approx(4.243e-4, abs=5e-8)
    found = answers(call, "--peak-lr 3e-4 --tuned-batch 512Ki --global-batch-tokens 1Mi")["rate"]
    assert found["linear"] == pytest.approx(6e-4) and found["square_root"] == pytest.approx(4.243e-4, abs=5e-8)
    assert found["linear_bounded"] is None and "unknown" in found["critical_source"]
    text = call("batch", *["--peak-lr", "3e-4", "--tuned-batch", "512Ki", "--global-batch-tokens", "1Mi"]).out
    assert re.search(r"linear .* 6e-4", text) and re.search(r"square root .* 4.24e-4", text)


def test_3_6_both_rules_stop_at_the_critical_batch(call: Call) -> None:
    line = "--peak-lr 3e-4 --tuned-batch 512Ki --global-batch-tokens 4Mi"
    found = answers(call, f"{line} --critical-batch 1Mi")["rate"]
    assert found["linear"] == pytest.approx(24e-4) and found["linear_bounded"] == pytest.approx(6e-4)
    assert found["square_root_bounded"] == pytest.approx(4.2426e-4, rel=1e-4)
    at_loss = answers(call, f"{line} --loss 3")["rate"]
    assert at_loss["critical_batch"] == pytest.approx(2e8 / 3 ** (1 / 0.21), rel=1e-12)
    assert "1812.06162" in at_loss["critical_source"] and "2001.08361" in at_loss["critical_source"]
    beyond = answers(call, "--peak-lr 3e-4 --tuned-batch 2Mi --global-batch-tokens 4Mi --critical-batch 1Mi")["rate"]
    assert beyond["linear_bounded"] == beyond["square_root_bounded"] == 3e-4


def test_no_batch_above_the_critical_one_raises_the_rate() -> None:
    assert batch_of_the_rate(7, 5) == 5 and batch_of_the_rate(3, 5) == 3
    assert critical_batch(1.0, 2e8, 0.21) == 2e8


def test_a_model_brings_its_batch_and_its_critical_batch(call: Call) -> None:
    found = answers(call, " ".join(BASE) + " --tuned-batch 256Ki")
    assert found["legal"] == [{"tokens": 524_288, "accumulation": found["legal"][0]["accumulation"]}]
    assert found["steps"] == 19_073 and found["rate"]["peak_lr"] == 6e-4
    assert found["rate"]["critical_batch"] == pytest.approx(1.4e6, rel=0.1)


@pytest.mark.parametrize(
    "wanted, unit, pair", [(10, 4, (8, 12)), (8, 4, (8, 8)), (3, 4, (0, 4)), (10**18 + 1, 10, (10**18, 10**18 + 10))]
)
def test_nearest_batches(wanted: int, unit: int, pair: tuple[int, int]) -> None:
    assert nearest_batches(wanted, unit) == pair


def test_nearest_legal_batches_with_their_accumulation(call: Call) -> None:
    found = answers(call, "--global-batch-tokens 500000 --seq 1024 --gpus 8 --micro-batch 4")
    assert found["legal"] == [{"tokens": 491_520, "accumulation": 15}, {"tokens": 524_288, "accumulation": 16}]
    assert len(answers(call, "--global-batch-tokens 524288 --seq 1024 --gpus 8")["legal"]) == 1
    call("estimate", *BASE, "--global-batch-tokens", "500000", "--gpus", "8", "--micro-batch", "4").refused(
        "491,520 or 524,288", "accumulation of 15 or 16"
    )


MISTAKES = {
    "": ("nothing can be said",),
    "--tuned-batch 1M": ("--tuned-batch: the peak rate is missing", "--peak-lr"),
    "--tuned-batch 1M --peak-lr 3e-4": ("--tuned-batch: the new batch is missing", "--global-batch-tokens"),
    "--tuned-batch 0 --peak-lr 3e-4 --global-batch-tokens 1M": ("--tuned-batch", "zero"),
    "--global-batch-tokens 1M --loss 3 --critical-batch 1M": ("--critical-batch and --loss contradict",),
    "--global-batch-tokens 1M --loss 1e-199": ("--loss", "outside"),
    "--global-batch-tokens 1M --loss 31": ("--loss", "nats"),
    "--global-batch-tokens 1M --critical-batch x": ("--critical-batch",),
    "--warmup-ratio 2% --tokens 1B": ("--warmup-ratio", "steps"),
    "--warmup-tokens 1M --steps 10": ("--warmup-tokens", "--global-batch-tokens"),
    "--accumulation 2 --global-batch-tokens 1M": ("contradict",),
}


@pytest.mark.parametrize("line", MISTAKES)
def test_mistake(call: Call, line: str) -> None:
    call("batch", *line.split()).refused(*MISTAKES[line])
