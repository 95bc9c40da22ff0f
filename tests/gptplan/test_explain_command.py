"""`gptplan explain` and `estimate --why`: numbers of a plan and calculations, as text and as JSON."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.gptplan.calling import BASE, Call


def test_a_number_of_the_plan(call: Call) -> None:
    said = call("explain", "cost.usd", *BASE)
    assert said.code == 0 and said.out.startswith("cost.usd = ") and not said.err
    for word in ("cost_of_hours", "LaTeX", "USD/hour", "defaults", "checked by", "gpu_hours = "):
        assert word in said.out


def test_json_of_a_number_is_the_estimates_number(call: Call) -> None:
    found = json.loads(call("explain", "throughput.step_seconds", *BASE, "--json").out)
    plan = json.loads(call("estimate", *BASE, "--json").out)
    assert found["value"] == plan["throughput"]["step_seconds"] == pytest.approx(found["evaluated"], rel=1e-12)
    assert found["expression"].count("+") == len(plan["throughput"]["parts"]) - 1


@pytest.mark.parametrize("key", ["3.1", "adam-first-moment"])
def test_a_calculation_by_number_and_by_name(call: Call, key: str) -> None:
    said = call("explain", key)
    assert said.code == 0 and "first_corrected = 2.74538" in said.out and "arXiv 1412.6980" in said.out
    changed = json.loads(call("explain", key, "--set", "beta1=0.5", "--set", "gradients=1,1,-1", "--json").out)
    assert changed["results"]["first_moment"] == -0.125
    assert changed["arguments"] == {"beta1": 0.5, "gradients": [1, 1, -1]}
    assert changed["formulas"]["first_moment"]["latex"].startswith("m = ")


def test_matrices_and_what_is_not_finite(call: Call) -> None:
    found = json.loads(call("explain", "4.3", "--set", "logits=1,2;3,4;0,0", "--set", "targets=0,1,1", "--json").out)
    assert found["results"]["mean_loss"] == pytest.approx((1.3132617 + 0.3132617 + 0.6931472) / 3)
    log = json.loads(call("explain", "3.5", "--json").out)
    assert log["arguments"]["norms"][-1] == "nan" and log["results"]["diverging"] is True
    calm = json.loads(call("explain", "3.5", "--set", "norms=0.5,nan", "--json").out)
    assert calm["results"]["active_from"] == 2


def test_every_calculation_prints_text_and_json(call: Call) -> None:
    listed = json.loads(call("explain", "--list", "--json").out)
    assert len(listed["calculations"]) == 48 and "cost.usd" in listed["keys"]
    for entry in listed["calculations"]:
        text = call("explain", entry["id"]).out
        assert text.startswith(f"{entry['id']} {entry['name']}: ")
        assert not [line for line in text.splitlines() if line.strip() == "formula"]  # a label without its text
        assert json.loads(call("explain", entry["name"], "--json").out)["id"] == entry["id"]


@pytest.mark.parametrize(
    ("calculation", "setting", "said"),
    [
        ("1.11", "parameters=-1", "negative"),
        ("3.4", "norm=-5", "norm: -5 is negative"),
        ("3.9", "rows=0.5", "whole number"),
        ("3.10", "counts=4,4,4,-4", "counts: -4 is negative"),
        ("3.12", "eps=-1", "eps: -1 is negative"),
        ("5.18", "new_share=1.5", "above 1"),
    ],
)
def test_a_value_that_cannot_be_is_refused(call: Call, calculation: str, setting: str, said: str) -> None:
    found = call("explain", calculation, "--set", setting)
    assert found.code == 2 and not found.out and said in found.err


def test_values_at_the_edge_and_with_suffixes_are_taken(call: Call) -> None:
    assert "weights_alone = 14000000000 byte" in call("explain", "1.11", "--set", "parameters=7B").out
    settings = (("5.9", "eps=0"), ("3.12", "gradient=-0.5"), ("1.18", "gpu_hours=0.5"), ("5.18", "new_share=1"))
    assert all(call("explain", number, "--set", setting).code == 0 for number, setting in settings)


def test_the_list_is_of_the_plan_that_is_given(call: Call) -> None:
    assert "throughput.parts.all-reduce" in call("explain", "--list").out
    assert "throughput.parts" not in call("explain", "--list", *BASE[:4], "--gpu", "cpu").out


def test_a_file_is_explained_too(call: Call, run_toml: Path) -> None:
    said = call("explain", "config.training.seq", "--config", str(run_toml))
    assert said.code == 0 and "1,024 token" in said.out and "GPT-2's context" in said.out


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("explain",), "--list"),
        (("explain", "3.1", "--list"), "takes no key"),
        (("explain", "cost.us"), "cost.usd"),
        (("explain", "3.99"), "3.9"),
        (("explain", "cost.us", *BASE), "cost.usd"),
        (("explain", "cost.usd"), "--params 125M"),
        (("explain", "batch.epochs", *BASE), "--dataset-tokens"),
        (("explain", "schedule.kind", *BASE), "no number"),
        (("explain", "cost.usd", *BASE, "--set", "gpus=8"), "flag"),
        (("explain", "3.1", "--gpus", "8"), "--set"),
        (("explain", "3.1", "--set", "beta=1"), "beta1"),
        (("explain", "3.1", "--set", "beta1"), "NAME=VALUE"),
        (("explain", "3.1", "--set", "beta1=x"), "--set beta1"),
        (("explain", "3.1", "--set", "beta1=1"), "no answer"),
        (("explain", "3.1", "--set", "beta1=0.5", "--set", "beta1=0.6"), "twice"),
        (("explain", "3.1", "--set", "gradients=1,,2"), "--set gradients"),
        (("explain", "4.1", "--set", "target=7"), "class 7 of 3"),
        (("explain", "4.1", "--set", "target=0.5"), "--set target"),
        (("explain", "4.4", "--set", "losses=1e9"), "no answer"),
        (("explain", "3.7", "--set", "x=1"), "has no arguments"),
        (("estimate", *BASE, "--why", "cost.us"), "cost.usd"),
    ],
)
def test_mistakes_are_one_message(call: Call, words: tuple[str, ...], expected: str) -> None:
    call(*words).refused(expected)


def test_estimate_why(call: Call) -> None:
    plain = call("estimate", *BASE).out
    said = call("estimate", *BASE, "--why", "cost.usd", "--why", "memory.peak_requested_bytes")
    assert said.code == 0 and said.out.startswith(plain.rstrip("\n"))
    after = said.out[len(plain) - 1 :]
    assert "\ncost.usd = " in after and "\nmemory.peak_requested_bytes = " in after
    found = json.loads(call("estimate", *BASE, "--why", "cost.usd", "--json").out)
    assert [one["key"] for one in found["why"]] == ["cost.usd"]
    assert "why" not in json.loads(call("estimate", *BASE, "--json").out)


@pytest.mark.parametrize(("extra", "loaded"), [((), False), (("--why", "cost.usd"), True)])
def test_sympy_is_loaded_for_explanations_only(extra: tuple[str, ...], loaded: bool, tmp_path: Path) -> None:
    code = (
        f"import sys; sys.argv = ['gptplan', 'estimate', *{list(BASE)!r}, *{list(extra)!r}]\n"
        "from gptplan.app import main\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "sys.stderr.write(str('sympy' in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stderr == str(loaded)


@pytest.mark.parametrize(
    "words",
    [
        ("1.11", "--set", "parameters=123456789012345678"),
        ("3.11", "--set", "at=1e17"),
        ("4.7", "--set", "given=1e17"),
        ("4.1", "--set", "target=1e17"),
        ("memory.weights_bytes", "--params", "100T", "--tokens", "1e18", "--gpu", "h100-80gb"),
        ("flops.training_model", "--params", "125M", "--tokens", "1e16", "--gpu", "h100-80gb"),
    ],
)
def test_no_number_has_more_than_fifteen_digits(call: Call, words: tuple[str, ...]) -> None:
    said = call("explain", *words)
    text = said.out + said.err
    long = [n for n in re.findall(r"\d[\d,.]*", text) if len(re.sub(r"\D", "", n).lstrip("0")) > 15]
    assert text and not long
