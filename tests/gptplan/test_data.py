"""`gptplan data`: its arguments, its output, and its error messages."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.gptplan.calling import Call


def test_text_is_prepared_and_described(call: Call, tmp_path: Path) -> None:
    text, out = tmp_path / "notes.txt", tmp_path / "out"
    text.write_text("a line\n" * 100)
    said = call("data", str(text), "-o", str(out), "--val-share", "10%", "--json")
    assert said.code == 0, said.err
    report = json.loads(said.out)
    assert (report["train"]["tokens"], report["validation"]["tokens"]) == (90 * 7 + 1, 10 * 7 + 1)
    again = call("data", str(out), "--json")
    assert json.loads(again.out) == report
    shown = call("data", str(out)).out
    assert "631 tokens (uint16) in 1 files" in shown and "end of text is 256" in shown
    two = json.loads(call("data", str(out), str(out / "train_000000.bin"), "--json").out)
    assert [one["train"]["tokens"] for one in two["reports"]] == [631, 631]
    call("data", str(text), "-o", str(out)).refused("exists already")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "the source is missing"),
        (["SOURCE"], "holds no tokens"),
        (["SOURCE", "--val-share", "0.1"], "--val-share: for preparing only"),
        (["SOURCE", "-o", "OUT", "--val-share", "x"], "--val-share"),
        (["SOURCE", "-o", "OUT", "--val-share", "0.1", "--val-tokens", "5"], "contradict"),
        (["SOURCE", "-o", "OUT", "--tokenizer", "nothing.json"], "cannot read the tokenizer"),
        (["SOURCE", "-o", "OUT", "--tokenizer", "tiktoken:gpt3"], "unknown tiktoken vocabulary 'gpt3'"),
        (["SOURCE", "-o", "OUT", "--eot", "257"], "is not a token of byte"),
        (["MISSING", "-o", "OUT"], "No such file"),
        (["SOURCE", "-o", "SOURCE/out"], "cannot be written"),
    ],
)
def test_mistakes(call: Call, tmp_path: Path, words: list[str], said: str) -> None:
    source = tmp_path / "notes.txt"
    source.write_text("a line\n")
    places = {"SOURCE": str(source), "OUT": str(tmp_path / "out"), "MISSING": str(tmp_path / "missing.txt")}
    places["SOURCE/out"] = str(source / "out")
    call("data", *(places.get(word, word) for word in words)).refused(said)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]
