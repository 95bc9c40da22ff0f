"""`gptplan fit`: its text, its JSON and the same from Python."""

from __future__ import annotations

import json

import jsonschema

import gptplan
from planner.report.schemas import schemas
from tests.gptplan.calling import Call

SHAPE = ["--layers", "12", "--hidden", "1024", "--heads", "16", "--vocab", "32768", "--seq", "1024", "--steps", "100"]
WORDS = ["fit", *SHAPE, "--gpu", "a100-40gb", "--micro-batch", "128", "--accumulation", "1", "--as-of", "2026-11-21"]


def test_text_json_and_python_agree(call: Call) -> None:
    text, shown = call(*WORDS), json.loads(call(*WORDS, "--json").out)
    assert (text.code, text.err) == (0, "")
    jsonschema.Draft202012Validator(schemas()["fit"]).validate(shown)
    assert not shown["fits_as_it_is"] and "✗ does not fit" in text.out
    assert " ".join(shown["change_flags"]) in text.out
    for one in shown["largest"]:
        assert one["flags"] in text.out or one["largest"] is None
    found = gptplan.fit(
        **{"layers": 12, "hidden": 1024, "heads": 16, "vocab": 32768, "seq": 1024, "steps": 100, "gpu": "a100-40gb"},
        micro_batch=128,
        accumulation=1,
        as_of="2026-11-21",
    )
    assert [one.largest for one in found.largest] == [one["largest"] for one in shown["largest"]]
    micro = str(shown["largest"][0]["largest"])
    smaller = [*WORDS[: WORDS.index("128")], micro, *WORDS[WORDS.index("128") + 1 :]]
    assert json.loads(call(*smaller, "--json").out)["fits_as_it_is"]


def test_a_processor_without_a_profile_is_refused(call: Call) -> None:
    call(*[word if word != "a100-40gb" else "cpu" for word in WORDS]).refused("is not known", "calibrate")
