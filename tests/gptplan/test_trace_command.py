"""`gptplan trace`: predicted and replayed peaks, with all and with few blocks, as JSON, and what it refuses."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from planner.analysis.replay import FEW, few_layers
from planner.counts.run import resolve
from planner.inputs.run_toml import load_config
from planner.memory.phases import simulate_run
from planner.report.schemas import schemas
from reference_trainer.measure.replay import replay
from tests.gptplan.calling import Call
from tests.soak import one_in

SMALL = (
    *("--family", "llama", "--hidden", "64", "--heads", "4", "--kv-heads", "2", "--vocab", "256", "--seq", "32"),
    *("--micro-batch", "2", "--accumulation", "1", "--steps", "10", "--precision", "bf16", "--gpu", "a100-80gb"),
)
EAGER = ("--runtime", "eager")


def planned(
    call: Call, tmp_path: Path, *words: str, name: str = "small.toml", runtime: tuple[str, ...] = EAGER
) -> Path:
    assert call("plan", *SMALL, *runtime, *words, "-o", name).code == 0
    return tmp_path / name


def changed(path: Path, old: str, new: str) -> Path:
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")
    return path


def traced(call: Call, path: Path, *words: str) -> dict[str, Any]:
    found = call("trace", str(path), *words, "--json")
    assert (found.code, found.err) == (0, "")
    document: dict[str, Any] = json.loads(found.out)
    jsonschema.validate(document, schemas()["trace"])
    return document


def test_a_compiled_runtime_that_nobody_chose_is_replayed_as_eager(call: Call, tmp_path: Path) -> None:
    path = planned(call, tmp_path, "--layers", "3", runtime=(), name="assumed.toml")
    assert load_config(path).training.runtime == "compiled"
    eager = traced(call, planned(call, tmp_path, "--layers", "3"))
    assert traced(call, path) == eager and eager["runtime"] == "eager"
    chosen = planned(call, tmp_path, "--layers", "3", runtime=("--runtime", "compiled"), name="chosen.toml")
    refused = call("trace", str(chosen))
    assert refused.code == 2 and "the runtime 'compiled' is not replayed" in refused.err


def test_predicted_and_replayed_stand_side_by_side(call: Call, tmp_path: Path) -> None:
    path = planned(call, tmp_path, "--layers", "3")
    found = traced(call, path)
    seen, simulated = replay(load_config(path)), simulate_run(resolve(load_config(path)))
    assert {p["phase"]: p["replayed_bytes"] for p in found["phases"]} == seen.by_phase()
    assert {p["phase"]: p["predicted_bytes"] for p in found["phases"]} == {
        p.phase: p.peak_bytes for p in simulated.phases
    }
    assert found["replayed_peak_phase"] == seen.peak.phase
    at = {p["phase"]: p["operator"] for p in found["phases"]}
    assert at[seen.peak.phase] == seen.peak.operator
    for p in found["phases"]:
        assert p["difference_bytes"] == p["predicted_bytes"] - p["replayed_bytes"]
        assert sum(p["at_peak"].values()) == p["predicted_bytes"]
    assert (found["replayed_layers"], found["extrapolated"], found["allocator_events"]) == ([3], False, "replay")
    for view in found["allocator"]:
        assert view["requested_bytes"] == seen.peak.peak_bytes <= view["allocated_bytes"] <= view["reserved_bytes"]


@pytest.mark.parametrize("mode", one_in(2, ["full", "none"]))
def test_few_blocks_drawn_on_are_what_all_are(call: Call, tmp_path: Path, mode: str) -> None:
    path = planned(call, tmp_path, "--layers", "7", "--activation-checkpointing", mode)
    few, whole = traced(call, path, "--layers", "few"), traced(call, path, "--layers", "all")
    assert (few["replayed_layers"], few["extrapolated"], few["allocator_events"]) == (list(FEW), True, "walk")
    assert (whole["replayed_layers"], whole["extrapolated"]) == ([7], False)
    for a, b in zip(few["phases"], whole["phases"], strict=True):
        assert abs(a["replayed_bytes"] - b["replayed_bytes"]) <= 64, a["phase"]
    for a, b in zip(few["allocator"], whole["allocator"], strict=True):
        assert abs(a["requested_bytes"] - b["requested_bytes"]) <= 64


def test_few_blocks_end_and_alternate_as_all_do(call: Call, tmp_path: Path) -> None:
    experts = ("--experts", "4", "--top-k", "2", "--expert-ffn", "48")
    path = planned(call, tmp_path, "--layers", "15", *experts)
    assert few_layers(load_config(changed(path, "first_dense_layers = 0", "first_dense_layers = 2")), None) == (5, 7)
    changed(path, 'activation_checkpointing = "none"', 'activation_checkpointing = "full"')
    config = load_config(changed(path, "activation_checkpointing_every = 1", "activation_checkpointing_every = 2"))
    # two dense blocks, then six units of two and one more; of the units three, or five
    assert few_layers(config, None) == (9, 13)
    assert few_layers(config, True) == (15,)


def test_the_text_says_what_was_replayed(call: Call, tmp_path: Path) -> None:
    whole = call("trace", str(planned(call, tmp_path, "--layers", "2"))).out
    assert "all blocks simulated" in whole and "← peak" in whole and "exact" in whole
    assert "expandable" in whole and "_log_softmax_backward_data.default" in whole
    few = call("trace", str(planned(call, tmp_path, "--layers", "40", name="deep.toml"))).out
    assert "simulated with 3 and 5 blocks" in few and "--layers all" in few


def test_what_is_wrong_is_one_message(call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = planned(call, tmp_path, "--layers", "2")
    call("trace").refused("the config is missing")
    call("trace", "no.toml").refused("no.toml does not exist")
    call("trace", str(path), "--layers", "7").refused("unknown --layers '7'", "all, few")
    (tmp_path / "empty.toml").write_text("", encoding="utf-8")
    call("trace", "empty.toml").refused("empty.toml is empty")
    planned_only = changed(planned(call, tmp_path, "--layers", "2", name="fp8.toml"), '"mixed-bf16"', '"fp8-te"')
    call("trace", str(planned_only)).refused("does not run the recipe fp8-te")
    compiled = changed(planned(call, tmp_path, "--layers", "2", name="fast.toml"), '"eager"', '"compiled"')
    call("trace", str(compiled)).refused("the runtime 'compiled' is not replayed")
    find = importlib.util.find_spec
    monkeypatch.setattr("gptplan.extras.find_spec", lambda name: None if name == "torch" else find(name))
    call("trace", str(path)).refused("a replay needs the package 'torch'", "pip install 'gptplan[train]'")
