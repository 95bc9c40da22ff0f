"""`make fuzz`: inputs are the same for a seed, whatever goes wrong is seen, and what once failed is tried again."""

from __future__ import annotations

import json
import random
import sys
from pathlib import Path
from typing import NoReturn

import pytest

from benchmarks.fuzz_inputs import COUNT, Found, keep, slices, tried, tried_apart
from benchmarks.fuzzing import directories, doors
from benchmarks.fuzzing.doors import DOORS, Door, TooLongError, outcome
from benchmarks.fuzzing.given import Given, from_json, to_json
from benchmarks.header import ROOT
from planner.errors import InputError

CORPUS = sorted((ROOT / "tests" / "corpus").rglob("*.json"))


@pytest.mark.parametrize("path", CORPUS, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_what_once_failed_does_not_fail_again(path: Path, tmp_path: Path) -> None:
    given = from_json(path.read_text(encoding="utf-8"))
    assert outcome(given, tmp_path)[1] == ""


@pytest.mark.parametrize("part", DOORS)
def test_inputs_are_the_same_for_a_seed_and_can_be_kept(part: str) -> None:
    drawn = [DOORS[part].draw(random.Random(f"1/{part}/{n}")) for n in range(30)]
    assert drawn == [DOORS[part].draw(random.Random(f"1/{part}/{n}")) for n in range(30)]
    assert len({to_json(given, "") for given in drawn}) > 20
    assert all(from_json(to_json(given, "nothing")) == given for given in drawn)


@pytest.mark.parametrize("part", DOORS)
def test_a_few_inputs_of_every_door_are_answered_or_refused(part: str) -> None:
    found = tried(part, 2, range(12))
    assert found.outcomes.total() == 12 and not found.failures


def entered(monkeypatch: pytest.MonkeyPatch, folder: Path, what: object) -> tuple[str, str]:
    """What is said of a door behind which that happens."""

    def enter(given: Given, folder: Path) -> str:
        if isinstance(what, BaseException):
            raise what
        assert callable(what)
        return str(what())

    monkeypatch.setitem(DOORS, "made up", Door(lambda rng: Given("made up"), enter, 0.0))
    return outcome(Given("made up"), folder)


def endless() -> NoReturn:
    while True:
        pass


def test_a_generator_that_breaks_is_a_failure_with_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(rng: random.Random) -> Given:
        raise KeyError("x")

    monkeypatch.setitem(DOORS, "made up", Door(broken, lambda given, folder: "", 0.0))
    found = tried_apart(("made up", 1, range(3)))
    assert found.outcomes == {"failed": 3} and "KeyError while inputs 0 to 2 of seed 1" in next(iter(found.failures))


def test_a_file_that_is_harmed_twice_may_be_nested_too_deeply() -> None:
    for seed in range(20):
        assert directories._harmed("meta.json", b"[" * 5000 + b"]" * 5000, random.Random(seed)) != b""


def test_whatever_goes_wrong_is_seen(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert entered(monkeypatch, tmp_path, lambda: "answered") == ("answered", "")
    assert entered(monkeypatch, tmp_path, InputError("no", remedy="yes")) == ("refused", "")
    assert "ZeroDivisionError" in entered(monkeypatch, tmp_path, ZeroDivisionError())[1]
    assert "MemoryError" in entered(monkeypatch, tmp_path, MemoryError())[1]
    monkeypatch.setattr(doors, "CPU_SECONDS", 0.2)
    assert TooLongError.__name__ in entered(monkeypatch, tmp_path, endless)[1]


@pytest.mark.parametrize(
    "code, out, err, failed",
    [
        (0, '{"a": 1}', "", False),
        (0, '{"a": NaN}', "", True),
        (2, "", "error: no\n  fix: yes\n", False),
        (2, "", "a line before\nerror: no\n", False),
        (2, "half an answer", "error: no\n", True),
        (2, "", "error: no\nerror: no\n", True),
        (2, "", "something\n", True),
        (2, "", "error: \x1b[31m\n", True),
        (3, "", "", True),
        (1, "", "Traceback (most recent call last):\n", True),
        (0, "x" * 300_000, "", True),
    ],
)
def test_an_answer_that_is_none_fails(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, code: int, out: str, err: str, failed: bool
) -> None:
    from tests.gptplan import calling

    monkeypatch.setattr(calling, "called", lambda *_: calling.Said(code, out, err))
    assert (outcome(Given("commands", ("estimate", "--json")), tmp_path)[0] == "failed") is failed


def test_a_failure_becomes_a_file_of_the_corpus(tmp_path: Path) -> None:
    given = Given("data", (), {"data/a.bin": b"\xff\x00", "data/b.txt": "é".encode()})
    keep({"data": Found(inputs={"it broke": to_json(given, "it broke")})}, tmp_path)
    (path,) = tmp_path.rglob("*.json")
    assert from_json(path.read_text()) == given and json.loads(path.read_text())["found"] == "it broke"


def test_the_work_is_a_hundred_thousand_inputs() -> None:
    assert sum(len(numbers) for _, _, numbers in slices(list(DOORS), COUNT, 1)) == COUNT >= 100_000
    assert sys.getrecursionlimit() < 2000  # nested JSON goes deeper


def test_the_last_result_has_no_failure_left() -> None:
    result = json.loads((ROOT / "benchmarks/results/fuzz_inputs.json").read_text(encoding="utf-8"))
    assert set(result["parts"]) == set(DOORS)
    assert result["inputs"] == sum(part["inputs"] for part in result["parts"].values()) >= 100_000
    assert result["failed"] == 0 and all(part["failures"] == {} for part in result["parts"].values())
