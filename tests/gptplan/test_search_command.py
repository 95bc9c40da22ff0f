"""`gptplan search`: its lists and limits as text, its table, files, JSON, and from Python the same answer."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

import gptplan
from planner.errors import PlanError
from planner.inputs.flags import Flags
from planner.inputs.run_toml import load_config
from planner.inputs.search import gpus_of, limits_of, one_of_each
from planner.report.scatter import scatter
from planner.report.schemas import schemas
from tests.gptplan.calling import Call

# layouts of two GPUs of two kinds, a few hundred
RUN = ["--params", "125M", "--tokens", "1B", "--seq", "1024", "--global-batch-tokens", "16Ki", "--as-of", "2026-11-21"]
TYPED = ["--loss-kind", "plain", "--pp", "1", "--activation-checkpointing", "none"]
WORDS = ["search", *RUN, *TYPED, "--gpu", "a100-40gb,h100-80gb", "--gpus", "1..2"]


def test_the_table_shows_the_best_why_and_the_front(call: Call) -> None:
    said = call(*WORDS)
    assert (said.code, said.err) == (0, "")
    for words in (
        "Best layouts by time",
        "2 h100-80gb",
        "What the second loses",
        "Time against cost",
        "verdict of the first",
        "✓ fits",
    ):
        assert words in said.out, words
    assert max(map(len, said.out.splitlines())) <= 110


def test_json_keeps_its_schema_and_csv_has_the_same_rows(call: Call) -> None:
    found: dict[str, Any] = json.loads(call(*WORDS, "--json", "--by", "cost").out, parse_constant=pytest.fail)
    jsonschema.Draft202012Validator(schemas()["search"]).validate(found)
    costs = [one["usd"] for one in found["best"]]
    assert costs == sorted(costs) and found["by"] == "cost"
    rows = list(csv.DictReader(io.StringIO(call(*WORDS, "--csv", "-", "--by", "cost").out)))
    assert [float(row["usd"]) for row in rows] == costs
    assert [row["gpu"] for row in rows] == [one["gpu"] for one in found["best"]]


def test_from_python_the_same_answer(call: Call) -> None:
    keywords: dict[str, Any] = {
        **{"params": "125M", "tokens": 1e9, "seq": 1024, "global_batch_tokens": "16Ki", "gpu": "a100-40gb,h100-80gb"},
        **{"gpus": "1..2", "loss_kind": "plain", "pp": 1, "activation_checkpointing": "none"},
    }
    result = gptplan.search(as_of="2026-11-21", top=3, head_room=0.1, max_cost=1000, **keywords)
    shown = json.loads(call(*WORDS, "--json", "--top", "3", "--head-room", "10%", "--max-cost", "$1k").out)
    assert [one.step_seconds for one in result.best] == [one["step_seconds"] for one in shown["best"]]
    assert len(result.best) == 3


def test_the_winner_is_written_and_nothing_overwritten_unless_told(call: Call, tmp_path: Path) -> None:
    said = call(*WORDS, "-o", "best.toml", "--csv", "best.csv")
    assert said.code == 0 and "wrote best.toml" in said.err and "wrote best.csv" in said.err
    config = load_config(tmp_path / "best.toml")
    assert (config.hardware.gpu, config.hardware.gpus) == ("h100-80gb", 2)
    plan = gptplan.estimate(config)
    assert f"{plan.batch.micro_batch} x {plan.batch.accumulation}" in said.out
    before = (tmp_path / "best.toml").read_bytes()
    call(*WORDS, "-o", "best.toml").refused("best.toml")
    assert (tmp_path / "best.toml").read_bytes() == before
    assert call(*WORDS, "-o", "best.toml", "--force").code == 0
    call(*WORDS, "-o", "x", "--csv", "x").refused("named twice")


def test_the_winner_goes_to_stdout_as_a_config(call: Call, tmp_path: Path) -> None:
    said = call(*WORDS, "-o", "-")
    assert said.code == 0 and not (tmp_path / "-").exists()
    (tmp_path / "run.toml").write_text(said.out)
    assert load_config(tmp_path / "run.toml").hardware.gpu == "h100-80gb"


def test_names_of_files_are_read_before_the_search(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gptplan.functions.searched", None)
    call(*WORDS, "--plot", "best.pdf").refused("neither .png nor .svg")


def test_a_file_keeps_its_batch_on_every_number_of_gpus(call: Call, tmp_path: Path) -> None:
    made = call("plan", *RUN, "--gpu", "h100-80gb", "--gpus", "4", "--micro-batch", "2", "-o", "run.toml")
    assert made.code == 0, made
    found = json.loads(call("search", "--config", "run.toml", *TYPED, "--gpus", "2,8", "--json").out)
    for one in found["best"]:
        assert one["micro_batch"] * one["accumulation"] * one["dp"] == 16
    assert {one["gpus"] for one in found["best"]} == {2, 8}


MISTAKES = {
    "--gpus 8..4": "no range of GPUs",
    "--gpus 0..4": "--gpus",
    "--gpu a100-40gb,b999": "b999",
    "--gpu cpu": "processor",
    "--by beauty": "beauty",
    "--max-cost 1EUR": "US dollars",
    "--head-room 100%": "--head-room",
    "--top 0": "--top",
    "--max-cost $0.000001": "--max-cost",
}


@pytest.mark.parametrize("line", MISTAKES)
def test_a_mistake_is_one_message(call: Call, line: str) -> None:
    name = line.split()[0]
    words = [w for i, w in enumerate(WORDS) if name not in (w, WORDS[i - 1])]
    call(*words, *line.split()).refused(MISTAKES[line])


def test_lists_and_limits_are_read() -> None:
    assert gpus_of("8..64") == (8, 16, 32, 64) and gpus_of("6..20,24") == (6, 12, 24) and gpus_of("8,8") == (8,)
    limits = limits_of("$10k", "7d", "5%")
    assert (limits.usd, limits.seconds, limits.head_room) == (10_000, 7 * 86_400, 0.05)
    one = one_of_each(Flags(gpu="h200,a100-40gb", gpus="8..64", tp="4", pp="6", fsdp="fsdp"))
    assert (one.gpu, one.gpus) == ("h200", "48")
    with pytest.raises(PlanError, match="no range"):
        gpus_of("9..3")


def test_points_are_drawn_where_they_are() -> None:
    lines = scatter([(0.0, 10.0), (5.0, 5.0), (10.0, 0.0)], x="h", y="USD", width=40, plain=True)
    top, bottom = next(line for line in lines if "a" in line), next(line for line in lines if "c" in line)
    assert lines.index(top) < lines.index(next(line for line in lines if "b" in line)) < lines.index(bottom)
    assert top.index("a") < bottom.index("c") and max(map(len, lines)) <= 40
    assert all(character.isascii() for line in lines for character in line)
    assert "a" in "".join(scatter([(1.0, 1.0)], x="h", y="USD", width=30))


def test_a_winner_that_is_not_known_to_fit_is_written_and_said_to_be_open(call: Call, tmp_path: Path) -> None:
    shape = ["--layers", "42", "--hidden", "3072", "--heads", "16", "--vocab", "32768", "--seq", "2048"]
    space = ["--gpu", "a100-40gb", "--gpus", "2", "--loss-kind", "plain", "--runtime", "eager"]
    batch = ["--tokens", "1B", "--global-batch-tokens", "16Ki", "--tp", "1", "--cp", "1", "--as-of", "2026-11-21"]
    said = call("search", *shape, *batch, *space, "-o", str(tmp_path / "run.toml"))
    assert said.code == 0 and "none is known to fit, these may" in said.out
    assert "it is not known to fit: " in said.err and load_config(tmp_path / "run.toml").hardware.gpus == 2
