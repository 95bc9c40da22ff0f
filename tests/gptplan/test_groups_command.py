"""`gptplan groups`, and groups in a run.toml: written, read back, refused by name."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from planner.config.run import OptimizerConfig
from planner.inputs.draft import draft
from planner.inputs.flags import Flags
from planner.inputs.run_toml import config_text, load_config
from tests.gptplan.calling import Call

GROUPS = [{"match": "embedding.*", "rate": 4, "weight_decay": 0.0}, {"match": "blocks.*.mlp.*", "rate": 0.5}]


@pytest.fixture
def run_toml(tmp_path: Path) -> Path:
    flags = Flags(params="125M", tokens="1B", gpu="cpu", clip_value="0.5")
    config = draft(flags, as_of="2026-11-21", version="test")
    values = config.optimizer.model_dump() | {"groups": GROUPS}
    config = config.model_copy(update={"optimizer": OptimizerConfig.model_validate(values)})
    path = tmp_path / "run.toml"
    path.write_text(config_text(config), encoding="utf-8")
    assert load_config(path) == config and config.optimizer.clip_value == 0.5
    return path


def test_groups_are_shown_and_add_up(call: Call, run_toml: Path) -> None:
    said = call("groups", str(run_toml))
    assert said.code == 0 and "embedding.*, matrices" in said.out and "all others, vectors" in said.out
    found = json.loads(call("groups", str(run_toml), "--json").out)["groups"]
    assert [(g["rate"], g["weight_decay"]) for g in found] == [(4, 0), (0.5, 0.1), (0.5, 0), (1, 0.1), (1, 0)]
    assert sum(g["parameters"] for g in found) == 124_439_808
    assert sum(g["tensors"] for g in found) == 148 and found[1]["examples"][0] == "blocks.0.mlp.up.weight"


def test_without_rules_matrices_decay_and_vectors_do_not(call: Call, run_toml: Path) -> None:
    run_toml.write_text(run_toml.read_text(encoding="utf-8").split("[[optimizer.groups]]")[0] + "".join(
        "[" + part for part in run_toml.read_text(encoding="utf-8").split("[[optimizer.groups]]")[-1].split("\n[")[1:]
    ), encoding="utf-8")  # fmt: skip
    found = json.loads(call("groups", str(run_toml), "--json").out)["groups"]
    assert [(g["rule"], g["weight_decay"]) for g in found] == [("all, matrices", 0.1), ("all, vectors", 0)]


def test_a_rule_that_names_nothing_is_refused(call: Call, run_toml: Path) -> None:
    text = run_toml.read_text(encoding="utf-8").replace("embedding.*", "embeding.weight")
    run_toml.write_text(text, encoding="utf-8")
    for command in ("groups", "run"):
        said = call(command, str(run_toml))
        assert said.code == 2 and said.out == "" and "did you mean embedding.weight" in said.err
    with_flag = call("estimate", "--config", str(run_toml))
    assert with_flag.code == 2


def test_flags_over_a_config_keep_its_groups_or_refuse(call: Call, run_toml: Path) -> None:
    said = call("estimate", "--config", str(run_toml), "--optimizer", "lion", "--json")
    assert said.code == 0
    run_toml.write_text(run_toml.read_text(encoding="utf-8").replace("blocks.*.mlp.*", "blocks.11.*"), encoding="utf-8")
    said = call("estimate", "--config", str(run_toml), "--layers", "6")
    assert said.code == 2 and "blocks.11.*" in said.err


def test_a_missing_config_is_explained(call: Call) -> None:
    said = call("groups")
    assert said.code == 2 and "the config is missing" in said.err
