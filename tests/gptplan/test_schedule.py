"""`gptplan schedule`: rates without a model, of a run, compared with each other, as text, JSON, CSV and picture."""

from __future__ import annotations

import csv
import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest

from planner.report.schemas import schemas
from tests.gptplan.calling import BASE, Call

SCHEMA = jsonschema.Draft202012Validator(schemas()["schedule"])

LIGHT = ("schedule", "--peak-lr", "3e-4", "--min-lr", "3e-5", "--warmup-steps", "2000", "--steps", "10000")


def rate(call: Call, *words: str) -> float:
    said = call(*words, "--json")
    assert said.code == 0, said.err
    return float(json.loads(said.out)["curves"][0]["values"][0]["lr"])


@pytest.mark.parametrize(
    "row, words, value",
    [
        ("2.1", "--kind linear --peak-lr 3e-4 --warmup-steps 2000 --steps 10k --at 500", 7.5e-5),
        ("2.2", "--kind linear --peak-lr 1e-4 --warmup-steps 1000 --steps 10k --at 500", 5e-5),
        ("2.3", "--kind cosine --peak-lr 3e-4 --min-lr 3e-5 --warmup-steps 2000 --steps 10000 --at 6000", 1.65e-4),
        ("2.3", "--peak-lr 3e-4 --min-lr 10% --warmup-ratio 20% --steps 10000 --at 6000", 1.65e-4),
        ("2.4", "--peak-lr 3e-4 --min-lr 0 --warmup-steps 2000 --steps 100k --at 50000", 1.5481e-4),
        ("2.7", "--kind linear --peak-lr 3e-4 --min-lr 3e-5 --warmup-steps 2000 --steps 10k --at 6000", 1.65e-4),
        ("2.7", "--kind polynomial --peak-lr 3e-4 --min-lr 3e-5 --warmup-steps 2000 --steps 10k --at 6000", 9.75e-5),
        ("2.7", "--kind inverse_sqrt --peak-lr 3e-4 --min-lr 3e-5 --warmup-steps 2k --steps 10k --at 8000", 1.5e-4),
        ("2.7", "--kind wsd --peak-lr 3e-4 --warmup-steps 2k --cooldown-steps 2k --steps 10k --at 9k", 1.65e-4),
        ("2.7", "--kind wsd --peak-lr 3e-4 --warmup-steps 2k --cooldown-ratio 20% --steps 10k --at 9k", 1.65e-4),
        ("2.9", "--peak-lr 3e-4 --warmup-steps 2000 --steps 10000 --at 1M", 3e-5),
        ("2.10", "--peak-lr 3e-4 --warmup-steps 0 --steps 10 --at 0", 3e-4),
    ],
)
def test_answer(call: Call, row: str, words: str, value: float) -> None:
    assert rate(call, "schedule", *words.split()) == pytest.approx(value, rel=1e-4), row


def test_2_8_through_the_command(call: Call) -> None:
    words = "schedule --peak-lr 3e-4 --min-lr 1e-5 --warmup-steps 10 --steps 100 --every 10 --json"
    values = json.loads(call(*words.split()).out)["curves"][0]["values"]
    rates = [3.000, 2.913, 2.661, 2.275, 1.802, 1.298, 0.8250, 0.4392, 0.1874, 0.1]
    assert [v["step"] for v in values] == list(range(10, 101, 10))
    assert [1e4 * v["lr"] for v in values] == pytest.approx(rates, abs=5e-4)


def test_the_screen(call: Call) -> None:
    said = call(*LIGHT, "--at", "6000", "--continuity")
    assert (said.code, said.err) == (0, "")
    assert re.search(r"Values\n +step +learning rate\n +6,000 +1.65e-4", said.out)
    assert re.search(r"cosine +W +warm-up: p +cosine: p +yes", said.out)
    assert "cosine, peak 3e-4, min_lr 3e-5, 10,000 steps, warm-up 2,000 (20 %)" in said.out
    assert "[warmup]" in said.out and "1 % to 5 %" in said.out
    assert any("⠁" <= c <= "⣿" for c in said.out) and "\x1b" not in said.out


def test_tokens_are_shown_where_the_batch_is_known(call: Call) -> None:
    words = "schedule --peak-lr 3e-4 --tokens 10B --global-batch-tokens 512Ki --warmup-tokens 1B --at 1908 --json"
    curve = json.loads(call(*words.split()).out)["curves"][0]
    assert (curve["steps"], curve["schedule"]["warmup_steps"]) == (19_073, 1908)
    assert curve["values"] == [{"step": 1908, "tokens": 1908 * 2**19, "lr": 3e-4}]


def test_of_a_run_it_is_the_plans_schedule(call: Call, run_toml: Path) -> None:
    plan = json.loads(call("estimate", "--config", "run.toml", "--json").out)
    for words in (("--config", "run.toml"), BASE):
        curve = json.loads(call("schedule", *words, "--json").out)["curves"][0]
        assert curve["landmarks"] == plan["schedule"]["points"]
        assert {a["key"] for a in curve["assumptions"]} == {"schedule", "peak_lr", "min_lr", "warmup_steps"}
    over = call("schedule", "--config", "run.toml", "--kind", "wsd", "--json").out
    assert json.loads(over)["curves"][0]["schedule"]["cooldown_steps"] == 3815


def test_over_warm_ups(call: Call) -> None:
    words = "schedule --kind wsd --peak-lr 3e-4 --steps 100k --over warmup=500,2000,5000"
    said = call(*words.split())
    assert "● warmup=500   ▲ warmup=2000   ■ warmup=5000" in said.out
    curves = json.loads(call(*words.split(), "--at", "1000", "--json").out)["curves"]
    assert [c["values"][0]["lr"] for c in curves] == pytest.approx([3e-4, 1.5e-4, 6e-5])
    over = json.loads(call("schedule", *BASE, "--over", "peak-lr=1e-4,2e-4", "--json").out)["curves"]
    assert [c["schedule"]["peak_lr"] for c in over] == [1e-4, 2e-4]


def test_csv(call: Call, tmp_path: Path) -> None:
    said = call(*LIGHT, "--every", "1000", "--csv", "rates.csv")
    assert said.err == "wrote rates.csv\n"
    with (tmp_path / "rates.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file))
    assert rows[0] == ["step", "learning_rate"] and len(rows) == 11
    assert float(rows[6][1]) == pytest.approx(1.65e-4)


@pytest.mark.skipif(importlib.util.find_spec("matplotlib") is None, reason="the extra [plot] is not installed")
@pytest.mark.parametrize("name, head", [("a.png", b"\x89PNG"), ("a.svg", b"<?xml"), ("A.SVG", b"<?xml")])
def test_pictures(call: Call, tmp_path: Path, name: str, head: bytes) -> None:
    words = ("--over", "kind=cosine,linear,polynomial,inverse_sqrt,constant,wsd", "--plot", name)
    light = [w for w in LIGHT if w not in ("--min-lr", "3e-5")]
    assert call(*light, *words).code == 0
    first = (tmp_path / name).read_bytes()
    assert first.startswith(head)
    call(*light, *words).refused("exists already", "--force")
    assert call(*light, *words, "--force").code == 0
    assert (tmp_path / name).read_bytes() == first


def test_a_picture_without_matplotlib(call: Call, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("gptplan.extras.find_spec", lambda name: None)
    call(*LIGHT, "--plot", "a.png", "--csv", "a.csv").refused("matplotlib", "gptplan[plot]")
    assert not list(tmp_path.glob("a.*"))


@pytest.mark.skipif(importlib.util.find_spec("matplotlib") is None, reason="the extra [plot] is not installed")
def test_the_first_file_is_not_written_when_the_second_exists(call: Call, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_text("mine")
    call(*LIGHT, "--csv", "a.csv", "--plot", "a.png").refused("a.png exists already")
    assert [p.name for p in tmp_path.glob("a.*")] == ["a.png"]


def test_nothing_is_written_when_one_of_two_files_exists(call: Call, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("mine")
    call(*LIGHT, "--csv", "a.csv").refused("a.csv exists already", "--force")
    assert (tmp_path / "a.csv").read_text() == "mine"
    assert call(*LIGHT, "--csv", "a.csv", "--force").code == 0
    call(*LIGHT, "--csv", "no/a.csv").refused("cannot be written")
    call(*LIGHT, "--csv", "b.png", "--plot", "b.png").refused("both are b.png")
    assert not (tmp_path / "b.png").exists()


def test_csv_to_stdout_is_data_alone(call: Call) -> None:
    said = call(*LIGHT, "--at", "500", "--csv", "-")
    assert (said.out, said.err) == ("step,learning_rate\n500,7.5e-05\n", "")


def test_a_file_written_before_there_were_other_kinds_is_read(call: Call, run_toml: Path) -> None:
    before = call("estimate", "--config", "run.toml", "--json").out
    text = run_toml.read_text(encoding="utf-8")
    old, removed = re.subn(r"(?m)^(cooldown_steps|decay_power) = .*\n", "", text)
    assert removed == 2
    run_toml.write_text(old, encoding="utf-8")
    assert call("estimate", "--config", "run.toml", "--json").out == before


MISTAKES = {
    "--steps 10": ("--peak-lr is missing", "--params 125M"),
    "--peak-lr 3e-4": ("the length of the run is missing", "--steps"),
    "--peak-lr 3e-4 --tokens 1B": ("the tokens of one step are missing", "--global-batch-tokens"),
    "--peak-lr 3e-4 --steps 10 --warmup-tokens 1M": ("--warmup-tokens", "--global-batch-tokens"),
    "--peak-lr 3e-4 --steps 10 --kind cosin": ("unknown schedule 'cosin'", "cosine"),
    "--peak-lr 3e-4 --steps 10 --kind wsd --schedule wsd": ("--kind and --schedule contradict",),
    "--peak-lr 3e-4 --steps 10 --at x": ("--at",),
    "--peak-lr 3e-4 --steps 10 --at 1,,2": ("--at", "empty"),
    "--peak-lr 3e-4 --steps 10 --at -1": ("--at", "negative"),
    "--peak-lr 3e-4 --steps 10 --every 0": ("--every", "zero"),
    "--peak-lr 3e-4 --steps 1e18 --every 1": ("--every", "at most 1,000,000"),
    "--peak-lr 3e-4 --steps 10 --over warmup": ("--over", "warmup=500,2000,5000"),
    "--peak-lr 3e-4 --steps 10 --over warmup=5,50": ("warm-up of 50 steps", "10 steps"),
    "--peak-lr 3e-4 --steps 10 --over gpu=t4,l4": ("unknown flag of a schedule", "peak-lr"),
    "--peak-lr 3e-4 --steps 10 --plot a.pdf": ("a.pdf", ".png"),
    "--peak-lr 3e-4 --steps 10 --warmup-steps 6 --kind wsd --cooldown-steps 5": ("at most 4 steps",),
    "--gpu t4 --steps 10": ("the model is missing",),
}


@pytest.mark.parametrize("line", MISTAKES)
def test_mistake(call: Call, line: str) -> None:
    call("schedule", *line.split()).refused(*MISTAKES[line])


@pytest.mark.parametrize("steps", ["1", "2", "1e18"])
@pytest.mark.parametrize("kind", ["cosine", "linear", "polynomial", "inverse_sqrt", "constant", "wsd"])
@pytest.mark.parametrize("ratio", ["0", "0.5", "1"])
def test_shortest_and_longest_runs(call: Call, steps: str, kind: str, ratio: str) -> None:
    words = ("schedule", "--peak-lr", "3e-4", "--steps", steps, "--kind", kind, "--warmup-ratio", ratio)
    said = call(*words, "--at", f"0,1,{steps}")
    assert (said.code, said.err) == (0, ""), said
    SCHEMA.validate(json.loads(call(*words, "--json").out, parse_constant=pytest.fail))


@pytest.mark.parametrize("words", [LIGHT, ("schedule", *BASE)], ids=["alone", "of a run"])
def test_what_is_printed_keeps_to_its_schema(call: Call, words: tuple[str, ...]) -> None:
    said = call(*words, "--over", "kind=cosine,linear", "--at", "0,6000", "--continuity", "--json")
    found = json.loads(said.out, parse_constant=pytest.fail)
    SCHEMA.validate(found)
    assert [len(curve["values"]) for curve in found["curves"]] == [2, 2] and found["continuity"]
    curve = found["curves"][0]
    for name in curve:
        assert not SCHEMA.is_valid({**found, "curves": [{k: v for k, v in curve.items() if k != name}]}), name


def fresh(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """The command in a fresh process, with the modules that it loaded on stderr."""
    code = (
        f"import sys; sys.argv = ['gptplan', *{list(words)!r}]\nfrom gptplan.app import main\n"
        "try:\n    main()\nexcept SystemExit as stop:\n    assert not stop.code\n"
        "sys.stderr.write(' '.join(m.partition('.')[0] for m in sys.modules))"
    )
    root = str(Path(__file__).resolve().parents[2])
    env = {"PYTHONPATH": root, "PATH": "", **environment}
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=env)


def test_a_terminal_without_unicode_gets_ascii_and_nothing_heavy_is_loaded() -> None:
    done = fresh(*LIGHT, PYTHONIOENCODING="ascii", COLUMNS="60")
    drawn = picture(done.stdout)
    assert done.stdout.isascii() and "*" in drawn and "+---" in drawn
    assert max(map(len, drawn.splitlines())) <= 60
    assert not {"numpy", "sympy", "matplotlib", "torch", "tomlkit", "textual"} & set(done.stderr.split())
    dumb = fresh(*LIGHT, PYTHONIOENCODING="utf-8", TERM="dumb", COLUMNS="60")
    assert picture(dumb.stdout) == drawn
    assert "⠁" in picture(fresh(*LIGHT, PYTHONIOENCODING="utf-8", COLUMNS="60").stdout)


def picture(text: str) -> str:
    return text.partition("Learning rate over the steps\n")[2].partition("\n\n")[0]
