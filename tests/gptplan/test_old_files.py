"""Files that older versions wrote: they load, resume and compare, and no message is about a renamed key."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.gptplan.calling import Call

VERSION_1 = Path(__file__).parents[1] / "data/version_1"


@pytest.mark.parametrize(("name", "masking"), [("masked", "yes"), ("unmasked", "no")])
def test_an_old_run_toml_gives_the_plan_of_its_flag(call: Call, name: str, masking: str) -> None:
    old = call("estimate", "--config", str(VERSION_1 / f"{name}.toml"), "--json")
    assert (old.code, old.err) == (0, "")
    again = call("estimate", "--config", str(VERSION_1 / f"{name}.toml"), "--document-masking", masking,
                 "--as-of", "2026-11-27", "--json")  # fmt: skip
    assert json.loads(old.out)["config"]["training"] == json.loads(again.out)["config"]["training"]
    assert json.loads(old.out)["memory"] == json.loads(again.out)["memory"]


def test_an_old_run_directory_is_resumed_and_compared(call: Call, tmp_path: Path) -> None:
    run = Path(shutil.copytree(VERSION_1 / "run", tmp_path / "run"))
    said = call("run", "--resume", "run", "--data", str(VERSION_1 / "text.txt"), "--device", "cpu")
    assert said.code == 0, said.err
    # the directory was made on another processor, which the trainer names; nothing else may have changed
    lines = [line for line in said.err.splitlines() if not line.startswith("warned: device was ")]
    for word in ("document_", "refused", " was ", "unknown"):
        assert word not in "\n".join(lines), said.err
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text("utf-8").splitlines()]
    losses = json.loads((VERSION_1 / "losses.json").read_text("utf-8"))
    assert [row["loss"] for row in rows if "loss" in row] == pytest.approx(losses, rel=1e-5)
    assert call("compare", "run").code == 0
    assert call("export", "run", "-o", "exported").code == 0


def test_an_old_command_is_refused_by_its_new_name(call: Call) -> None:
    for words in (("rates",), ("rates", "run.toml", "--json"), ("rates", "--help")):
        call(*words).refused("there is no command rates", "write gptplan lr-find")


def test_an_old_flag_is_refused_by_its_new_name(call: Call) -> None:
    for words in (("--document-borders", "cut"), ("--document-borders=cut",)):
        call("estimate", "--params", "125M", "--tokens", "10B", *words).refused(
            "there is no flag --document-borders", "write --document-masking yes|no"
        )
